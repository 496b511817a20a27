"""What is said while rows go through a model."""

import json

import pytest
import tiny

from hf_unlearn import progress
from hf_unlearn.progress import RowsDone
from hf_unlearn.train import main


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_rows_are_told_every_ten_seconds_and_not_at_the_end(clock, capsys):
    done = RowsDone("scoring the original", 100)
    for seconds, count in ((4.0, 20), (12.0, 20), (20.0, 20), (23.0, 20), (40.0, 20)):
        clock[0] = seconds
        done(count)
    assert capsys.readouterr().out.splitlines() == [
        "scoring the original: 40 of 100 rows, 12 s, about 18 s left",
        "scoring the original: 80 of 100 rows, 23 s, about 6 s left",
    ]


def test_each_of_several_processes_counts_its_own_rows_and_repeats_are_no_rows(clock, capsys):
    done = RowsDone("scoring", 10, processes=4)
    clock[0] = 20.0
    done(2)
    clock[0] = 40.0
    done(2)  # 16 of 10: shares were filled up
    assert capsys.readouterr().out == "scoring: 8 of 10 rows, 20 s, about 5 s left\n"


def test_a_command_says_how_far_its_scoring_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", -1.0)
    made = tiny.own_data(tmp_path, "text_classification") | {
        "method": "fine_tune",
        "num_train_epochs": 1,
        "per_device_eval_batch_size": 8,
    }
    made.pop("proxy_epochs")
    made["original"]["num_train_epochs"] = 1
    assert main(["--config", tiny.write_config(tmp_path, made)]) == 0
    said = capsys.readouterr().out
    roles = json.loads((tmp_path / "out" / "evidence.json").read_text())["data"]["splits"]
    rows = sum(roles[name] for name in ("forget", "retain", "test"))
    for title in ("scoring the original", "scoring the unlearned model"):
        assert f"{title}: 8 of {rows} rows, 0 s, about" in said
