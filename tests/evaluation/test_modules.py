"""The `evaluate` modules: they load from their folders, say what the package says, and their cards' examples run."""

import ast
import re
from pathlib import Path

import evaluate
import numpy as np
import pytest

import hf_unlearn.evaluation
from hf_unlearn.evaluation import language_metrics
from hf_unlearn.evaluation.attacks import tpr_at_fpr
from hf_unlearn.evaluation.metrics import loss_auc, row_statistics
from hf_unlearn.evaluation.streisand import streisand
from hf_unlearn.evaluation.token_scores import TokenScores

FOLDER = Path(hf_unlearn.evaluation.__file__).parent / "modules"
NAMES = sorted(path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").exists())


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("evaluate"))
    loaded = {}

    def one(name):
        if name not in loaded:
            loaded[name] = evaluate.load(str(FOLDER / name), cache_dir=cache)
        return loaded[name]

    return one


RNG = np.random.default_rng(0)
SCORES, MEMBER = RNG.normal(size=1300).round(2), RNG.random(1300) < 0.2
LOSS, TWINS = RNG.exponential(size=40), RNG.exponential(size=(3, 40))
NLL, WRONG = RNG.exponential(size=30), RNG.exponential(size=(30, 5))
CHOSEN = [[1, 2, 3, 4], [9, 9, 9], [5, 9, 7], [6], [1, 1, 1, 1, 1]]
TRUE = [[1, 2, 3, 4], [1, 2, 3], [5, 6, 7], [6], [1, 2, 1, 2, 1]]


def tokens():
    hits = np.concatenate([np.equal(a, b) for a, b in zip(CHOSEN, TRUE, strict=True)]).astype(float)
    return TokenScores(hits, hits, hits, hits, np.array([len(row) for row in TRUE]))


def expected(name):
    if name == "membership_auc":
        auc = loss_auc(-SCORES[MEMBER], -SCORES[~MEMBER])
        return {"membership_auc": auc.value, "standard_error": auc.standard_error}
    if name == "tpr_at_fpr":
        return {"tpr_at_fpr": tpr_at_fpr(SCORES[MEMBER], SCORES[~MEMBER], 0.02)["value"]}
    if name == "forget_quality":
        quality = language_metrics.forget_quality(NLL, WRONG[:, 0])
        return {"forget_quality": quality["p_value"], "distance": quality["distance"]}
    if name == "extraction_strength":
        return {"extraction_strength": language_metrics.extraction_strength(tokens()).mean()}
    if name == "truth_ratio":
        return {"truth_ratio": language_metrics.truth_ratio_forget(language_metrics.truth_ratio(NLL, WRONG))}
    return row_statistics(LOSS, TWINS) if name == "row_z" else streisand(LOSS, TWINS)


INPUTS = {
    "membership_auc": {"predictions": SCORES, "references": MEMBER.astype(int)},
    "tpr_at_fpr": {"predictions": SCORES, "references": MEMBER.astype(int), "fpr": 0.02},
    "forget_quality": {"predictions": NLL, "references": WRONG[:, 0]},
    "extraction_strength": {"predictions": CHOSEN, "references": TRUE},
    "truth_ratio": {"predictions": NLL, "references": WRONG},
    "row_z": {"predictions": LOSS, "references": TWINS.T},
    "streisand": {"predictions": LOSS, "references": TWINS.T},
}


def test_every_module_is_covered():
    assert set(INPUTS) == set(NAMES) and len(NAMES) == 7
    assert not list(FOLDER.rglob("__init__.py"))


@pytest.mark.parametrize("name", NAMES)
def test_module_equals_the_package(load, name):
    assert load(name).compute(**INPUTS[name]) == expected(name)


def test_truth_ratio_of_kept_rows(load):
    ratio = language_metrics.truth_ratio(NLL, WRONG)
    found = load("truth_ratio").compute(predictions=NLL, references=WRONG, aggregation="utility")
    assert found == {"truth_ratio": language_metrics.truth_ratio_utility(ratio)}
    with pytest.raises(ValueError, match="aggregation"):
        load("truth_ratio").compute(predictions=NLL, references=WRONG, aggregation="both")


@pytest.mark.parametrize("name", NAMES)
def test_card(load, name):
    card, metric = (FOLDER / name / "README.md").read_text(), load(name)
    assert "\nVersion 1.0.0\n" in card and metric.citation.strip() in card and metric.citation.strip().startswith("@")
    assert "Version 1.0.0" in metric.description
    block = re.search(r"```python\n(.*?)```", card, re.S)[1]
    call, shown = re.search(r"metric\.compute(\(.*?\))\n# (.*)", block).groups()
    assert eval(f"dict{call}") and metric.compute(**eval(f"dict{call}")) == pytest.approx(ast.literal_eval(shown))
    assert call in metric.inputs_description and shown in metric.inputs_description


@pytest.mark.parametrize("name", NAMES)
def test_module_stands_alone(name):
    source = (FOLDER / name / f"{name}.py").read_text()
    assert "hf_unlearn" not in source
    assert not re.search(r"^import .*,", source, re.M)  # evaluate's own reader of imports misreads such a line


def test_undefined_is_none(load):
    nan = float("nan")
    assert load("membership_auc").compute(predictions=[1.0, 2.0], references=[1, 1])["membership_auc"] is None
    assert load("tpr_at_fpr").compute(predictions=[1.0] * 999, references=[1] * 5 + [0] * 994)["tpr_at_fpr"] is None
    assert load("forget_quality").compute(predictions=[nan], references=[1.0])["forget_quality"] is None
    assert load("row_z").compute(predictions=[1.0], references=[[1.0]])["rms_z"] is None
    assert load("streisand").compute(predictions=[nan], references=[[1.0]])["distance"] is None
