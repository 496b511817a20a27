"""Every mistake in the table ends with exit status 2, one line on stderr, and nothing written; no model is trained."""

import json
import os
import shutil
from pathlib import Path

import bad_inputs
import processes
import pytest
import tiny
import torch
import transformers
from bad_inputs import CASES, PROCESSES, SECRET, Case

from hf_unlearn import cli


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> dict[str, str]:
    """Rows, a tokenizer, and models that were never trained."""
    from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("shared")
    data = tiny.text_folder(folder / "data")
    images = tiny.image_folder(folder / "images")
    emotions = tiny.emotions_folder(folder / "emotions")
    processor = tiny.processor_folder(folder / "processor", "text_classification")
    size = len(tiny.tokenizer())
    names = {"id2label": {0: "cold", 1: "warm"}, "label2id": {"cold": 0, "warm": 1}}
    model = BertForSequenceClassification(BertConfig(**tiny.BERT, vocab_size=size, pad_token_id=0, **names))
    model.save_pretrained(folder / "model")
    tiny.processor_folder(folder / "model", "text_classification")
    base = BertForSequenceClassification.from_pretrained(folder / "model")
    adapted(base).save_pretrained(folder / "adapter")
    tiny.processor_folder(folder / "adapter", "text_classification")
    LlamaForCausalLM(LlamaConfig(**tiny.LLAMA, vocab_size=size)).save_pretrained(folder / "lm")
    image_processor = tiny.processor_folder(folder / "image_processor", "image_classification")
    return {
        "DATA": str(data), "IMAGES": str(images), "PROCESSOR": str(processor), "MODEL": str(folder / "model"),
        "LM": str(folder / "lm"), "ADAPTER": str(folder / "adapter"), "PIXELS": str(image_processor),
        "EMOTIONS": str(emotions),
    }  # fmt: skip


def adapted(model):
    from peft import LoraConfig, get_peft_model

    parts = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
    return get_peft_model(model, LoraConfig(r=2, task_type="SEQ_CLS", **parts))


def original(kind: str, values: dict) -> dict:
    return {"model_type": kind, "model_config": values, "num_train_epochs": 1, "batch_size": 8}


COMMON = tiny.QUICK | {"forget_fraction": 0.2, "output_dir": "HERE/new/out"}
TEXT = {"dataset_name": "DATA", "task": "text_classification", "processor_name_or_path": "PROCESSOR"} | COMMON
BASES = {
    "text": TEXT | {"original": original("bert", tiny.BERT)},
    "given": TEXT | {"model_name_or_path": "MODEL", "processor_name_or_path": None},
    "lm": TEXT | {"task": "causal_lm", "question_column": "question", "answer_column": "answer",
                  "original": original("llama", tiny.LLAMA)},
    "sets": TEXT | {"dataset_name": "EMOTIONS", "task": "multilabel_text_classification",
                    "original": original("bert", tiny.BERT)},
    "digits": COMMON | {"dataset_name": "digits", "original": original("vit", tiny.VIT)},
    "images": COMMON | {"dataset_name": "IMAGES", "task": "image_classification", "processor_name_or_path": "PIXELS",
                        "original": original("vit", tiny.VIT)},
}  # fmt: skip


def prepare(case: Case, folder: Path, shared: dict[str, str]) -> list[str]:
    """Write the case's files and its configuration; returns the command line."""
    places = shared | {"HERE": str(folder), "CONFIG": str(folder / "config.yaml")}

    def settle(value):
        if isinstance(value, str):
            for word, place in places.items():
                value = value.replace(word, place)
            return value
        if isinstance(value, dict):
            return {key: settle(item) for key, item in value.items()}
        return [settle(item) for item in value] if isinstance(value, list) else value

    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == "-> nowhere":
            path.symlink_to(folder / "nowhere")
        elif isinstance(content, str) and content.startswith("SPOILED "):
            spoil(Path(settle(content.split()[1])), path, content.split()[2])
        elif isinstance(content, str) and content.startswith("EDIT "):
            path.write_text(json.dumps(edited_evidence(*content.removeprefix("EDIT ").split("=", 1))))
        else:
            path.write_bytes(content if isinstance(content, bytes) else settle(content).encode())
    config = BASES[case.base] | case.config
    if "model_config" in config:  # values of the architecture
        start = BASES[case.base]["original"]
        config["original"] = start | {"model_config": start["model_config"] | config.pop("model_config")}
    config = {key: value for key, value in settle(config).items() if value is not None}
    path = tiny.write_config(folder, config)
    if case.raw is not None:
        Path(path).write_text(case.raw)
    argv = settle(case.argv)
    if case.command == "train" and "--config" not in argv:
        argv = ["--config", path, *argv]
    return [case.command, *argv]


def spoil(source: Path, folder: Path, how: str) -> None:
    """A copy of a model's or an adapter's folder with other weights."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    if how.startswith("without:"):
        weights = {name: value for name, value in weights.items() if how.partition(":")[2] not in name}
    elif how == "nan":
        weights = {name: value * float("nan") if "layer.1" in name else value for name, value in weights.items()}
    elif how == "more":
        weights |= {name.replace("layer.1", "layer.2"): value.clone() for name, value in weights.items()}
    else:  # of another shape
        part = {name: value for name, value in weights.items() if how.partition(":")[2] in name}
        weights |= {name: torch.cat([value, value]) for name, value in part.items()}
    if weights:
        save_file(weights, file, metadata={"format": "pt"})
    else:
        file.unlink()


def edited_evidence(place: str, value: str) -> dict:
    """Evidence whose keys are all there, with a value (in JSON) put in the place of one of its own."""
    from hf_unlearn.report.evidence import build_evidence

    evidence = build_evidence(
        method={"name": "nabla_tau"}, task="causal_lm", model={}, data={}, comparison={"models": {}, "gap": {}},
        cost={}, environment={},
    )  # fmt: skip
    *path, last = place.split(".")
    block = evidence
    for name in path:
        block = block[name]
    block[last] = json.loads(value)
    return evidence


def check_line(case: Case, err: str) -> None:
    err = err.strip()
    assert len(err.splitlines()) == 1 and err.startswith("hf-unlearn: "), err
    assert case.message in err, err
    assert "Traceback" not in err and SECRET not in err
    assert len(err) < 1200


def most_are_slow(names, every: int) -> list:
    """All names; all but each so many-th marked, so that a quick run sees some of every kind."""
    return [pytest.param(name, marks=[pytest.mark.slow] if i % every else []) for i, name in enumerate(names)]


@pytest.fixture
def no_training(monkeypatch):
    def train(self, *args, **kwargs):
        raise AssertionError("a training began")

    monkeypatch.setattr(transformers.Trainer, "train", train)


@pytest.mark.parametrize("name", most_are_slow(CASES, 8))
def test_bad_input(capfd, tmp_path, shared, no_training, name):
    case = CASES[name]
    argv = prepare(case, tmp_path, shared)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folders = sorted(path for path in tmp_path.rglob("*") if path.is_dir())
    capfd.readouterr()
    assert cli.main(argv) == 2
    check_line(case, capfd.readouterr().err)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(path for path in tmp_path.rglob("*") if path.is_dir()) == folders


COMMAND = "import sys; from hf_unlearn.cli import main; sys.exit(main())"
# What may be said before a row turns out to be bad.
PROGRESS = {"processes  1 on cpu, not sharded, no mixed precision", "reading the rows"}


@pytest.mark.parametrize("name", most_are_slow(PROCESSES, 20))
def test_as_a_process(tmp_path, shared, name):
    case = CASES[name]
    argv = prepare(case, tmp_path, shared)
    before = sorted(tmp_path.rglob("*"))
    done = processes.run(COMMAND, *argv)
    assert done.returncode == 2 and set(done.stdout.splitlines()) <= PROGRESS
    check_line(case, done.stderr)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_another_run_works_in(capfd, tmp_path, shared):
    from hf_unlearn.run.lock import only_run_in

    argv = prepare(Case("busy", ""), tmp_path, shared)
    with only_run_in(tmp_path / "new" / "out"):
        assert cli.main(argv) == 2
    assert "in use by a run that is under way" in capfd.readouterr().err and not (tmp_path / "new").exists()


def test_a_worker_that_outlives_a_killed_run_holds_no_lock(tmp_path):
    from hf_unlearn.run import lock

    with lock.only_run_in(tmp_path / "out"):
        (held,) = (file.fileno() for file in lock._HELD)
        child = os.fork()
        if not child:
            try:
                os.fstat(held)
            except OSError:  # closed
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        os.fstat(held)


def test_the_cases_are_many_and_differ():
    assert len(CASES) >= 300
    assert len(PROCESSES) >= 30
    assert len(CASES) == sum(map(len, bad_inputs.FAMILIES.values()))


@pytest.mark.parametrize("base", BASES)
def test_what_is_spoiled_would_work(tmp_path, shared, base):
    assert cli.main([*prepare(Case("fine", "", base=base), tmp_path, shared), "--dry_run"]) == 0
