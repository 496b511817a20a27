"""What is pushed, what is not, and that it loads."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_hub import LoopbackHub
from safetensors.torch import load_file, save_file
from toy import SETUPS, text_rows

from hf_unlearn.api import unlearn
from hf_unlearn.commands.push import push as push_command
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.errors import UserError
from hf_unlearn.exits import run_command
from hf_unlearn.hub import upload
from hf_unlearn.hub.staging import stage
from hf_unlearn.report.card import ADAPTER_LIMIT, PLACEHOLDER

QUICK = {"method": "fine_tune", "max_steps": 2, "learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True}
DOCUMENTS = {"README.md", "evidence.json", "report.html", "plots/loss_histogram.png"}
MODEL = {
    "image": {"config.json", "model.safetensors"},
    "text": {"config.json", "model.safetensors"},
    "sets": {"config.json", "model.safetensors"},
    "lm": {"config.json", "generation_config.json", "model.safetensors"},
}
ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
PROCESSOR = {"image": {"preprocessor_config.json"}, "text": TOKENIZER, "sets": TOKENIZER, "lm": TOKENIZER}
AUTO = {
    "image": "AutoModelForImageClassification",
    "text": "AutoModelForSequenceClassification",
    "sets": "AutoModelForSequenceClassification",
    "lm": "AutoModelForCausalLM",
}
KINDS = ("full", "merged", "adapter")
PUSH = """
import sys
from hf_unlearn.exits import run_command
from hf_unlearn.commands.push import push as push_command
for line in sys.argv[1:]:
    print(run_command(push_command, line.split("|")))
"""
LOAD = """
import sys, torch, transformers
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
found = {}
for line in sys.argv[2:]:
    name, auto, inputs = line.split("|")
    auto = getattr(transformers, auto)
    processor = transformers.AutoImageProcessor if "Image" in auto.__name__ else transformers.AutoTokenizer
    processor.from_pretrained(name)
    if name.endswith("adapter"):
        model = PeftModel.from_pretrained(auto.from_pretrained(PeftConfig.from_pretrained(name).base_model_name_or_path), name)
    else:
        model = auto.from_pretrained(name)
    with torch.no_grad():
        found[name] = model.eval()(**load_file(inputs)).logits
save_file(found, sys.argv[1])
"""  # noqa: E501


def run(program: str, *lines: str, hub: LoopbackHub, home: Path, **more: str) -> subprocess.CompletedProcess:
    environment = os.environ | hub.environment(home) | more
    return subprocess.run(
        [sys.executable, "-c", program, *lines],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest() for path in files}


def result(kind: str, folder: Path, **more):
    """A small model, unlearned for two steps, saved in `folder`, and a batch of its inputs."""
    model, splits, task = SETUPS[kind]()
    if task.label_names:
        model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
        model.config.id2label = dict(enumerate(task.label_names))
    source = splits.forget.source
    rows = {"train": source.select(range(40)), "test": source.select(range(40, 70))}
    columns = task.columns if kind == "lm" else None
    done = unlearn(model, task.processor, rows, forget=[1, 4, 9], columns=columns, output_dir=folder, **QUICK | more)
    return done, {k: v for k, v in task.collate(splits.test.__getitems__(range(5))).items() if k != "labels"}


def logits(model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """Everything pushed and loaded again, each in a process of its own: the hub, and logits here and there."""
    made = {}

    def make():
        if made:
            return made
        folder, server = tmp_path_factory.mktemp("results"), LoopbackHub.start()
        here, pushes, loads = {}, [], []
        for task in SETUPS:
            for kind in KINDS:
                name, path = f"tester/{task}-{kind}", folder / f"{task}-{kind}"
                if kind == "adapter":
                    done, inputs = adapter_result(task, path, base=folder / f"{task}-full")
                else:
                    done, inputs = result(task, path, use_peft=kind == "merged")
                here[name] = logits(done.model, inputs)
                save_file({k: v.contiguous() for k, v in inputs.items()}, folder / f"{task}.inputs")
                pushes.append(f"{path}|--hub_model_id|{name}" + "|--push_adapter" * (kind == "adapter"))
                loads.append(f"{name}|{AUTO[task]}|{folder / f'{task}.inputs'}")
        before = contents(folder)
        said = run(PUSH, *pushes, hub=server, home=folder / "home")
        run(LOAD, str(folder / "there"), *loads, hub=server, home=folder / "another")
        after = {name: digest for name, digest in contents(folder).items() if name in before}
        made.update(hub=server, here=here, there=load_file(folder / "there"), said=said, folder=folder)
        made.update(untouched=before == after, left=[path.name for path in folder.glob(".hf-unlearn-push-*")])
        return made

    return make


def adapter_result(task: str, folder: Path, base: Path):
    """The same through an adapter that is saved as one, on a base that is on the Hub."""
    import transformers

    model = getattr(transformers, AUTO[task]).from_pretrained(base)
    model.name_or_path = f"tester/{task}-full"
    toy_model, splits, toy_task = SETUPS[task]()
    source = splits.forget.source
    rows = {"train": source.select(range(40)), "test": source.select(range(40, 70))}
    columns = toy_task.columns if task == "lm" else None
    from hf_unlearn.models.lora import add_lora

    peft_model = add_lora(model, r=2, alpha=4, dropout=0.0, task_type=toy_task.peft_task_type)
    done = unlearn(peft_model, toy_task.processor, rows, forget=[1, 4, 9], columns=columns, **QUICK)
    done.save(folder, save_adapter=True)
    return done, {k: v for k, v in toy_task.collate(splits.test.__getitems__(range(5))).items() if k != "labels"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", SETUPS)
def test_what_arrives_is_the_list_and_loads_with_the_same_logits(pushed, task, kind):
    made, name = pushed(), f"tester/{task}-{kind}"
    files = made["hub"].files[name]
    model = ADAPTER_FILES if kind == "adapter" else MODEL[task]
    assert set(files) == model | PROCESSOR[task] | DOCUMENTS
    assert [set(names) for names in made["hub"].commits[name]] == [set(files)]
    assert torch.equal(made["there"][name], made["here"][name])
    card = files["README.md"].decode()
    assert PLACEHOLDER not in card and name in card
    assert (ADAPTER_LIMIT in card) == (kind == "adapter")
    assert f"base_model: tester/{task}-full" in card if kind == "adapter" else "base_model:" not in card


def test_nothing_pushed_names_this_machine(pushed):
    made = pushed()
    for files in made["hub"].files.values():
        for name, content in files.items():
            assert str(made["folder"]).encode() not in content and b"local_files_only" not in content, name
    assert made["untouched"] and not made["left"]
    assert (
        made["said"].stdout.count("pushed to") == len(SETUPS) * len(KINDS) and "Traceback" not in made["said"].stderr
    )


def test_a_push_supersedes_the_weights_that_are_there(pushed, tmp_path):
    made, name = pushed(), "tester/twice"
    old = {"adapter_config.json": b"{}", "pytorch_model.bin": b"0", "model-00001-of-00002.safetensors": b"0"}
    made["hub"].files[name] = old | {"notes.txt": b"kept"}
    run(PUSH, f"{made['folder'] / 'text-full'}|--hub_model_id|{name}", hub=made["hub"], home=tmp_path)
    files = made["hub"].files[name]
    assert set(files) == MODEL["text"] | TOKENIZER | DOCUMENTS | {"notes.txt"}
    assert len(made["hub"].commits[name]) == 1


def test_a_push_that_fails_says_how_to_try_again_and_leaves_the_result(pushed, tmp_path):
    made = pushed()
    folder, server = made["folder"] / "lm-full", LoopbackHub.start()
    before = contents(folder)
    server.statuses = {f"tester/s{status}": status for status in (401, 403, 500)}
    lines = [f"{folder}|--hub_model_id|{repo}|--hub_private_repo" for repo in server.statuses]
    done = run(PUSH, *lines, hub=server, home=tmp_path)
    assert done.stdout.split() == ["2", "2", "2"]
    errors = done.stderr.splitlines()
    assert len(errors) == 3
    for line, reason in zip(errors, ("refuses the token (401)", "may not write", "answers 500"), strict=True):
        assert line.startswith("hf-unlearn: the push failed: ") and reason in line
        assert f"hf-unlearn push {folder} --hub_model_id tester/s" in line and line.endswith("--hub_private_repo")
    server.shutdown()
    server.server_close()
    done = run(PUSH, f"{folder}|--hub_model_id|tester/x", hub=server, home=tmp_path)
    assert done.stdout.split() == ["2"] and len(done.stderr.splitlines()) == 1 and "cannot be reached" in done.stderr
    assert contents(folder) == before
    assert not [path for path in made["folder"].iterdir() if path.name.startswith(".hf-unlearn-push-")]


def test_offline_is_said_in_one_line(pushed, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = pushed()["folder"] / "text-full"
    assert run_command(push_command, [str(folder), "--hub_model_id", "a/b"]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        upload.check_can_push("token")


def test_a_private_repository(pushed, tmp_path):
    made = pushed()
    folder = made["folder"] / "text-full"
    run(PUSH, f"{folder}|--hub_model_id|own|--hub_private_repo", hub=made["hub"], home=tmp_path)
    assert made["hub"].created["tester/own"]["visibility"] == "private"
    assert "visibility" not in made["hub"].created["tester/text-full"]


# What may leave a folder.


@pytest.fixture
def finished(pushed, tmp_path):
    """A copy of a finished folder to lace: `finished("text-full")`."""
    import shutil

    def copy(name: str = "text-full") -> Path:
        return Path(shutil.copytree(pushed()["folder"] / name, tmp_path / name))

    return copy


def test_only_the_list_is_staged(finished, tmp_path):
    folder, secret = finished(), b"MARKER"
    for name in (
        "saliency_mask.safetensors", "noise.safetensors", "method_state.safetensors", "model.safetensors.bak",
        "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", "forget_ids.txt",
        "checkpoint-5/model.safetensors", "checkpoint-5/config.json", "plots/row_17.png", "rows.csv", "runs/e.out",
        "evidence.json.partial", ".cache/tokenizer.json", "adapter_model.safetensors", "modeling_own.py", "Readme.md",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(secret)
    names = stage(folder, tmp_path / "staged")
    assert set(names) == MODEL["text"] | TOKENIZER | DOCUMENTS == set(contents(tmp_path / "staged"))
    assert not any(secret in path.read_bytes() for path in (tmp_path / "staged").rglob("*") if path.is_file())


def test_sharded_weights_go_whole_or_not_at_all(finished, tmp_path):
    folder = finished()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"metadata": {}, "weight_map": {name: shards[i % 2] for i, name in enumerate(weights)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(weights, folder / shards[0])
    with pytest.raises(UserError, match="no model that loads"):
        stage(folder, tmp_path / "staged")
    save_file(weights, folder / shards[1])
    assert set(stage(folder, tmp_path / "staged")) > {*shards, "model.safetensors.index.json", "config.json"}


@pytest.mark.parametrize("name", ["README.md", "evidence.json", "model.safetensors", "plots"])
def test_links_are_refused(finished, tmp_path, name):
    folder = finished()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        stage(folder, tmp_path / "staged")


def in_file(name: str, text: str):
    def lace(folder: Path):
        path = folder / name
        if name.endswith(".json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"from": text}))
        else:
            path.write_text(f"{path.read_text()}\n{text}\n")

    return lace


@pytest.mark.parametrize("name", ["README.md", "report.html", "evidence.json", "config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("path", ["{folder}", "{folder}/x", "{home}/data/rows.csv", "/home/nemo/x", "file://{home}/x"])
def test_a_path_of_this_machine_is_refused(finished, tmp_path, monkeypatch, name, path):
    monkeypatch.setattr("getpass.getuser", lambda: "nemo")
    monkeypatch.setenv("HOME", "/srv/people/nemo")
    folder = finished()
    in_file(name, f"see {path.format(folder=folder, home='/srv/people/nemo')}")(folder)
    with pytest.raises(UserError, match=f"{name} in .* names a path of this machine") as error:
        stage(folder, tmp_path / "staged")
    assert "\n" not in str(error.value) and "people" not in str(error.value)


@pytest.mark.parametrize("path", ["/mnt/disk7/rows.csv", "C:\\data\\rows.csv", "~/rows/x.csv"])
def test_in_json_any_absolute_path_is_refused(finished, tmp_path, path):
    folder = finished()
    in_file("evidence.json", path)(folder)
    with pytest.raises(UserError, match="names a path"):
        stage(folder, tmp_path / "staged")


@pytest.mark.parametrize(
    "text",
    ["https://huggingface.co/nemo/home/nemo/x", "nemo/model", "<td>a</td>", "a/b/c.png", "1/2", "[x](a/nemo)"],
)
def test_what_is_no_path_of_this_machine_passes(finished, tmp_path, monkeypatch, text):
    monkeypatch.setattr("getpass.getuser", lambda: "nemo")
    folder = finished()
    for name in ("README.md", "report.html", "evidence.json"):
        in_file(name, text)(folder)
    stage(folder, tmp_path / "staged")


def test_names_of_local_folders_leave_the_configurations(finished, tmp_path):
    folder = finished()
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        content |= {
            "name_or_path": str(tmp_path),
            "inner": {"_name_or_path": "text-full"},
            "kept": {"name_or_path": "a/b"},
        }
        (folder / name).write_text(json.dumps(content))
    stage(folder, tmp_path / "staged")
    staged = json.loads((tmp_path / "staged" / "config.json").read_text())
    assert "name_or_path" not in staged and staged["inner"] == {} and staged["kept"] == {"name_or_path": "a/b"}
    assert "local" not in (tmp_path / "staged" / "tokenizer_config.json").read_text()
    assert json.loads((folder / "config.json").read_text())["name_or_path"] == str(tmp_path)


def test_an_adapter_goes_only_where_that_is_honest(finished, tmp_path):
    folder = finished("text-adapter")
    with pytest.raises(UserError, match="still holds the forgotten rows.*`push_adapter`"):
        stage(folder, tmp_path / "1")
    (folder / "README.md").write_text("my own card")
    stage(folder, tmp_path / "2", push_adapter=True)
    assert ADAPTER_LIMIT in (tmp_path / "2" / "README.md").read_text()
    evidence = json.loads((folder / "evidence.json").read_text())
    evidence["model"]["peft"]["given"] = True  # the rows were learned by the adapter, not by its base
    (folder / "evidence.json").write_text(json.dumps(evidence))
    assert set(stage(folder, tmp_path / "3")) == ADAPTER_FILES | TOKENIZER | DOCUMENTS
    config = json.loads((folder / "adapter_config.json").read_text())
    for base in (str(tmp_path), "text-adapter", None):
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        with pytest.raises(UserError, match="a folder of this machine.*merged weights"):
            stage(folder, tmp_path / "4", push_adapter=True)


def test_what_is_no_finished_run_is_refused(finished, tmp_path):
    folder = finished()
    with pytest.raises(UserError, match="no folder"):
        stage(tmp_path / "nowhere", tmp_path / "staged")
    evidence = json.loads((folder / "evidence.json").read_text())
    evidence["data"]["request"]["values"] = ["MARKER"]
    (folder / "evidence.json").write_text(json.dumps(evidence))
    with pytest.raises(UserError, match="says more of the forget request"):
        stage(folder, tmp_path / "staged")
    (folder / "evidence.json").write_text("{}")
    with pytest.raises(UserError, match="no evidence"):
        stage(folder, tmp_path / "staged")
    (folder / "evidence.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        stage(folder, tmp_path / "staged")


def test_a_model_with_code_of_its_own_is_refused(finished, tmp_path):
    folder = finished()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling_own.Own"}}))
    with pytest.raises(UserError, match="Python code"):
        stage(folder, tmp_path / "staged")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "a/b--modeling_own.Own"}}))
    stage(folder, tmp_path / "staged")


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "-a", "a--b", "../a", "a.git"])
def test_a_name_that_is_none_is_refused_before_anything(name, tmp_path):
    with pytest.raises(UserError, match="is no name of a repository"):
        upload.push(tmp_path, name)


def test_the_command_line(capsys):
    assert run_command(push_command, ["x"]) == 2
    assert run_command(push_command, ["x", "--hub_model_id", "a/b", "--nonsense"]) == 2
    assert run_command(push_command, ["nowhere", "--hub_model_id", "a/b"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("hf-unlearn: ") for line in errors)
    assert "no folder nowhere" in errors[2]


def test_no_byte_of_the_forget_rows_is_pushed(tmp_path, capsys, caplog):
    """Texts, ids and the request's value carry marker strings; a text of the retain rows does not travel either."""
    model, _, task = SETUPS["lm"]()
    rows = text_rows(70)
    marked = [5, 11, 12]
    texts = [f"{text} MARKERROW" if i in marked else text for i, text in enumerate(rows["question"])]
    owners = ["MARKERVALUE" if i in marked else f"owner{i}" for i in range(70)]
    rows = rows.remove_columns("question").add_column("question", texts).add_column("owner", owners)
    rows = rows.add_column("row_id", [f"MARKERID{i}" for i in range(70)])
    (tmp_path / "ids.txt").write_text("MARKERID5\nMARKERID11\nMARKERID12\n")
    data = {"train": rows.select(range(40)), "test": rows.select(range(40, 70))}
    server, lines = LoopbackHub.start(), []
    requests = (
        ForgetRequest(where=["owner=MARKERVALUE"]),
        ForgetRequest(ids_file=str(tmp_path / "ids.txt"), id_column="row_id"),
    )
    for i, request in enumerate(requests):
        folder = tmp_path / f"out{i}"
        done = unlearn(model, task.processor, data, forget=request, columns=task.columns, output_dir=folder, **QUICK)
        assert len(done.splits.forget) == 3
        print(done, request, done.splits, done.splits.forget, done.splits.forget.source.column_names)
        lines.append(f"{folder}|--hub_model_id|tester/m{i}")
        everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert b"MARKER" not in everything
    said = run(PUSH, *lines, hub=server, home=tmp_path / "home")
    out = capsys.readouterr()
    for text in (out.out, out.err, said.stdout, said.stderr, caplog.text, json.dumps(done.trainer.state.log_history)):
        assert "MARKER" not in text
    assert len(server.files) == 2 and b"MARKER" not in server.sent
    assert not any(b"MARKER" in content for files in server.files.values() for content in files.values())
    assert np.all([len(files) > 5 for files in server.files.values()])


TRAIN = "import sys; from hf_unlearn.train import main; sys.exit(main(sys.argv[1:]))"


def test_the_train_command_pushes_once_at_the_end(tmp_path):
    import tiny

    server = LoopbackHub.start()
    more = {"push_to_hub": True, "hub_model_id": "me/cold", "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    config = tiny.own_data(tmp_path, "text_classification", method="fine_tune", **more)
    del config["proxy_epochs"]
    path = tiny.write_config(tmp_path, config)
    done = run(TRAIN, "--config", path, hub=server, home=tmp_path / "home")
    assert done.stdout.splitlines()[-1].startswith("pushed to http") and (tmp_path / "out" / "checkpoint-2").is_dir()
    assert set(server.files["me/cold"]) == MODEL["text"] | TOKENIZER | DOCUMENTS
    assert len(server.commits["me/cold"]) == 1
    assert not any(str(tmp_path).encode() in content for content in server.files["me/cold"].values())
