import getpass
import json
import math
import socket
import subprocess
import sys
from enum import Enum
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from hf_unlearn.report import SCHEMA_VERSION, build_evidence, environment, schema, validate, write_json
from hf_unlearn.report.blocks import Gap
from hf_unlearn.report.evidence import plain


def test_a_run_has_every_key_with_and_without_twins(make_evidence):
    for twins in (0, 1, 4):
        evidence = make_evidence(twins)
        assert evidence["schema_version"] == SCHEMA_VERSION
        assert validate(evidence) == []
        assert validate(json.loads(json.dumps(evidence, allow_nan=False))) == []


def test_what_a_part_lacks_is_none_and_the_rest_is_kept():
    evidence = build_evidence(
        method={"name": "m"}, task="t", model={}, data={"splits": {"forget": 3}}, comparison={},
        cost={"steps": 5, "shadows": 2}, environment={},
    )  # fmt: skip
    assert validate(evidence) == []
    assert evidence["method"] == {"name": "m", "paper": None, "hyperparameters": None}
    assert evidence["data"]["splits"] == {"forget": 3, "retain": None, "validation": None, "test": None}
    assert evidence["cost"]["steps"] == 5 and evidence["cost"]["shadows"] == 2
    assert evidence["cost"]["unlearn_seconds"] is None
    assert evidence["floor"] == dict.fromkeys(Gap.__annotations__)


def test_validate_names_what_is_missing(make_evidence):
    evidence = make_evidence()
    del evidence["task"], evidence["gap"]["average"], evidence["models"]["original"]["loss"]["test"], evidence["cost"]
    del evidence["models"]["unlearned"]["rows"]
    evidence["schema_version"] = 99
    assert set(validate(evidence)) == {
        "task is missing", "gap.average is missing", "models.original.loss.test is missing", "cost is missing",
        "models.unlearned.rows is missing", "schema_version is 99, not 1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("gap", "average"), "low", 'gap.average is "low", not number or null'),
        (("data", "request"), [1], "data.request is an array, not object"),
        (("seeds", "twins"), [1.5], "seeds.twins.0 is 1.5, not integer"),
        (
            ("models", "unlearned", "intervals", "membership"),
            [0.4],
            "models.unlearned.intervals.membership has 1 items",
        ),
        (("models", "original"), None, None),
        (("distributions", "roc", "tpr", "original"), [True], "distributions.roc.tpr.original.0 is true, not number"),
        (
            ("attacks",),
            {"figures": {"loss": {"twins": {"value": 1}}}},
            "attacks.figures.loss.twins.interval is missing",
        ),
        (("cost", "electricity"), "42 kWh", None),
    ],
)
def test_validate_says_where_a_value_is_of_another_kind(make_evidence, place, value, told):
    evidence = json.loads(json.dumps(make_evidence(plots=True)))
    block = evidence
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    found = validate(evidence)
    assert found == [] if told is None else any(text.startswith(told) for text in found), found
    assert validate([]) == ["the file is an array, not object"]


def test_the_schema_file_is_that_of_the_types():
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    assert Path(schema.__file__).with_name("evidence.schema.json").read_text(encoding="utf-8") == schema.text()


def test_settings_are_written_as_one_would_type_them():
    class Kind(Enum):
        LINEAR = "linear"

    assert plain({"lr_scheduler_type": Kind.LINEAR}) == {"lr_scheduler_type": "linear"}


def test_written_json_is_strict(tmp_path):
    content = {
        "nan": math.nan, "inf": [1.0, -math.inf, (np.nan,)], "array": np.array([1.0, np.inf]), "integer": np.int64(3),
        "float": np.float32(0.5), "flag": np.bool_(True), 4: {"none": None, "text": "±"},
    }  # fmt: skip
    write_json(tmp_path / "evidence.json", content)

    assert [entry.name for entry in tmp_path.iterdir()] == ["evidence.json"]

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"), parse_constant=refuse) == {
        "nan": None, "inf": [1.0, None, [None]], "array": [1.0, None], "integer": 3,
        "float": 0.5, "flag": True, "4": {"none": None, "text": "±"},
    }  # fmt: skip


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "evidence.json"
    write_json(path, {"run": 1})
    with pytest.raises(TypeError):
        write_json(path, {"run": object()})

    def full_disk(self, text, **kwargs):
        with open(self, "w") as file:
            file.write(text[:3])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError):
        write_json(path, {"run": 2})
    assert json.loads(path.read_text()) == {"run": 1}


def test_environment_says_what_matters_and_nothing_private():
    facts = environment(7, "cpu", processes=2)
    assert (facts["seed"], facts["device"], facts["processes"]) == (7, "cpu", 2)
    assert facts["packages"]["torch"] and facts["packages"]["transformers"] and "hf_unlearn" in facts["packages"]
    text = json.dumps(facts)
    assert all(word not in text for word in (str(Path.home()) + "/", socket.gethostname()))
    assert getpass.getuser() not in text.split('"')


def test_reports_need_no_torch():
    code = "import sys, hf_unlearn.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
