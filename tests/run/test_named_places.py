"""A name with nothing behind it is told before anything heavy is imported; the command line overrides a file's."""

import subprocess
import sys

import pytest
import yaml

from hf_unlearn.errors import UserError
from hf_unlearn.run.named_places import check_named_places

MISSING = {
    "train_file": "there is no file nowhere",
    "forget_ids": "there is no file nowhere",
    "dataset_name": "there is no file or folder './nowhere.csv'",
    "model_name_or_path": "there is no folder ./nowhere.csv",
    "reference_model": "there is no folder ./nowhere.csv",
}


def config(folder, values) -> list[str]:
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return ["--config", str(folder / "run.yaml")]


@pytest.mark.parametrize("name", MISSING)
def test_what_is_not_there_is_told(tmp_path, name):
    (tmp_path / "there").mkdir()
    for argv in (
        [f"--{name}", "./nowhere.csv"],
        ["--seed", "3", f"--{name.replace('_', '-')}=./nowhere.csv", *config(tmp_path, {name: str(tmp_path)})],
        config(tmp_path, {name: ["./nowhere.csv"] if name == "reference_model" else "./nowhere.csv"}),
    ):
        with pytest.raises(UserError, match=MISSING[name]):
            check_named_places(argv)
        check_named_places([*argv, "--help"])


def test_names_on_the_hub_and_values_of_other_types_are_left_to_others(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    values = {
        "dataset_name": "someone/rows",
        "model_name_or_path": "someone/model",
        "train_file": 7,
        "test_file": None,
    }
    argv = ["--base_model", "gpt2", "--forget_file", str(tmp_path / "rows.csv"), "--method", "salun"]
    check_named_places([*argv, *config(tmp_path, values)])


def test_a_file_that_the_command_line_takes_the_place_of_need_not_be_there(tmp_path):
    argv = config(tmp_path, {"train_file": "nowhere.csv", "forget_ids": "nowhere.txt"})
    with pytest.raises(UserError, match="`train_file`: there is no file nowhere.csv"):
        check_named_places(argv)
    check_named_places([*argv, "--dataset_name", "digits", "--forget_fraction", "0.1"])


COMMANDS = {
    "hf_unlearn.train": [],
    "hf_unlearn.cli": ["train"],
    **{f"hf_unlearn.cli {name}": [name] for name in ("compare", "evaluate", "audit", "lira")},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_waits_for_torch_to_hear_it(tmp_path, name):
    program = f"import sys; from {name.split()[0]} import main; print(main(sys.argv[1:]), *sys.modules)"
    argv = [*COMMANDS[name], *config(tmp_path, {"method": "salun", "train_file": "nowhere.csv"})]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=120)
    status, *modules = done.stdout.split()
    assert status == "2" and done.stderr == "hf-unlearn: --train_file: there is no file nowhere.csv\n"
    assert not set(modules) & {"torch", "transformers", "datasets", "pyarrow", "peft"}
