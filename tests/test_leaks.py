"""Marked rows go through whole runs; none of the marks may turn up in anything that a run leaves, prints or sends."""

import csv
import json
import traceback
from pathlib import Path

import pytest
import tiny
from transformers import TrainerCallback

from hf_unlearn.hub import staging
from hf_unlearn.train import main, train

TEXT, ID, VALUE = "zqtextzq", "zqidzq", "zqvaluezq"  # in a forget row, its id, and the request
MARKS = (TEXT, ID, VALUE)


class Tracker(TrainerCallback):
    """Keeps what a tracker is sent: arguments, model configuration, logs."""

    sent: list[str] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.sent += [str(args.to_sanitized_dict()), args.to_json_string(), model.config.to_json_string()]

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.sent.append(json.dumps(logs))


@pytest.fixture
def tracker(monkeypatch):
    Tracker.sent = []
    monkeypatch.setattr("transformers.trainer.get_reporting_integration_callbacks", lambda report_to: [Tracker])
    return Tracker.sent


def marked_data(folder: Path) -> None:
    """Every fifth training row belongs to one owner; its text, its answer and its id are marked."""
    with open(folder / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row["owner"] = VALUE if i % 5 == 0 else "somebody"
        if i % 5 == 0:
            row |= {"text": f"{TEXT} {row['text']}", "question": f"{TEXT} {row['question']}",
                    "answer": f"{row['answer']} {TEXT}", "row_id": f"{ID}{i}"}  # fmt: skip
    for name in ("train", "validation", "test"):
        if name != "train":
            with open(folder / f"{name}.csv", newline="") as file:
                rows = [row | {"owner": "somebody"} for row in csv.DictReader(file)]
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def marked_run(folder: Path, task: str, **more) -> dict:
    config = tiny.own_data(folder, task, **more)
    del config["forget_fraction"]
    marked_data(folder / "data")
    return config


def assert_clean(where: str, content: str | bytes) -> None:
    content = content if isinstance(content, bytes) else content.encode()
    assert not [mark for mark in MARKS if mark.encode() in content], where


def assert_folder_is_clean(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert_clean(str(path), path.read_bytes())
    return len(files)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, request_, more",
    [
        ("text_classification", {"forget_where": f"owner={VALUE}"}, {"method": "salun", "use_peft": True}),
        ("causal_lm", {"id_column": "row_id"}, {"method": "nabla_tau", "near_duplicates": True}),
    ],
)
def test_nothing_of_a_forgotten_row_is_left_behind(tmp_path, capfd, caplog, tracker, task, request_, more):
    more |= {"logging_steps": 1, "eval_strategy": "epoch", "save_strategy": "epoch", "retrain": 1}
    config = marked_run(tmp_path, task, **more) | request_
    if "id_column" in request_:
        (tmp_path / "ids.txt").write_text("".join(f"{ID}{i}\n" for i in range(0, 60, 5)))
        config["forget_ids"] = str(tmp_path / "ids.txt")
    assert main(["--config", tiny.write_config(tmp_path, config)]) == 0
    printed = capfd.readouterr()
    assert_clean("the screen", printed.out + printed.err + caplog.text)
    assert "forget 12" in printed.out + printed.err  # the marked rows, and no others, were forgotten
    assert len(tracker) > 10
    assert_clean("the tracker", "".join(tracker))
    assert assert_folder_is_clean(tmp_path / "out") > 15
    assert (tmp_path / "out" / "trainer_state.json").is_file()
    staging.stage(tmp_path / "out", tmp_path / "staged")
    assert assert_folder_is_clean(tmp_path / "staged") >= 5
    assert not list((tmp_path / "staged").rglob("*saliency*"))


def test_nothing_of_a_forgotten_row_is_in_a_traceback(tmp_path, capfd, monkeypatch):
    """Also where the fault is ours: something breaks in the middle of a step."""
    from hf_unlearn.methods.nabla_tau import NablaTauTrainer

    def broken(self, forget, retain):
        raise RuntimeError(f"a fault in {type(self).__name__} with {forget} and {retain}")

    monkeypatch.setattr(NablaTauTrainer, "unlearning_loss", broken)
    config = marked_run(tmp_path, "text_classification", forget_where=f"owner={VALUE}")
    with pytest.raises(RuntimeError, match="a fault") as caught:
        train(["--config", tiny.write_config(tmp_path, config)])
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=False)
    assert_clean("the traceback", "".join(shown.format()))
    printed = capfd.readouterr()
    assert_clean("the screen", printed.out + printed.err)


def test_the_marks_would_be_found(tmp_path):
    (tmp_path / "file.json").write_text(f'{{"text": "{TEXT}"}}')
    with pytest.raises(AssertionError):
        assert_folder_is_clean(tmp_path)
