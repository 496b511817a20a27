"""The whole matrix: every method in one contest, on texts and on language models. Beside
these, `make test` has a contest of a few methods, and each method once by itself."""

import json

import pytest
import tiny

from hf_unlearn.cli import main
from hf_unlearn.methods import METHODS
from hf_unlearn.report.contest_blocks import Contest
from hf_unlearn.report.schema import problems

ANSWERS = {"altpo", "idk_nll", "idk_dpo"}
EPOCH = ("--num_train_epochs", "1")
ALTERNATES = {"method_arguments": {"altpo": {"alternates": 2, "alternate_tokens": 3}}}
# Of each family its request, its arguments, and who is passed over: for answers, for whole classes, for labels.
FAMILIES = {
    "text": ("text_classification", {}, EPOCH, ANSWERS | {"unsir"}),
    "language": (
        "causal_lm",
        ALTERNATES,
        EPOCH,
        {"unsir", "boundary_shrink", "boundary_expanding", "lotus", "bad_teacher"},
    ),
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_everybody_who_serves_a_family_takes_part_in_its_contest(tmp_path, family):
    task, request, arguments, passed_over = FAMILIES[family]
    values = tiny.own_data(tmp_path, task, **request)
    values["original"]["num_train_epochs"] = 3
    values.pop("proxy_epochs")
    values.pop("num_train_epochs")
    argv = ["--methods", "all", "--retrain", "2", *arguments]
    assert main(["compare", "--config", tiny.write_config(tmp_path, values), *argv]) == 0
    found = json.loads((tmp_path / "out" / "contest.json").read_text())
    assert problems(found, Contest) == []
    assert set(found["passed_over"]) & set(METHODS) == passed_over  # installed packages may bring more
    entries = {entry["name"]: entry for entry in found["entries"]}
    assert set(entries) == set(METHODS) - passed_over | {"do nothing", "another twin"}
    assert {name: entry["failed"] for name, entry in entries.items() if entry["failed"]} == {}
    for name, entry in entries.items():
        figures = entry["figures"]
        assert figures["test_accuracy"] is not None and figures["rms_z"] is not None, name
        assert name == "do nothing" or figures["examples"]["mean"] > 0, name
    page = (tmp_path / "out" / "contest.html").read_text()
    assert all(name in page for name in entries)
