import json

import numpy as np
import pytest

from hf_unlearn.evaluation.attack_comparison import compare_attacks
from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.evaluation.scores import SplitScores


def model(seed):
    rng = np.random.default_rng(seed)

    def split(rows):
        phi = rng.normal(2, 2, rows)
        loss = np.log1p(np.exp(-phi))
        return SplitScores(loss, phi, (phi > 0) * 1.0, np.exp(-loss), loss / 2, loss, np.arange(rows) % 2)

    scores = {"forget": split(40), "retain": split(60), "test": split(50)}
    return scores | {"nonmembers": scores["test"]}


def test_models_side_by_side():
    twins = [model(2), model(3)]
    found = compare_attacks(model(0), model(1), twins)
    areas = [loss_auc(twin["forget"].loss, twin["test"].loss).value for twin in twins]
    figure = found["figures"]["loss: AUC"]
    assert figure["twins"]["value"] == pytest.approx(np.mean(areas))
    assert figure["twins"]["interval"] == pytest.approx([min(areas), max(areas)])
    assert figure["original"]["interval"][0] < figure["original"]["value"] < figure["original"]["interval"][1]
    assert found["figures"]["loss: TPR at 1 % FPR"]["unlearned"]["value"] is None  # 50 unseen rows say nothing of 1 %
    assert "logistic regression" in found["not_run"][0]
    json.dumps(found, allow_nan=False)


def test_classifiers_on_demand():
    found = compare_attacks(None, model(1), [], classifiers=True)
    assert found["not_run"] == [] and "support vectors (share called unseen): entropy" in found["figures"]
    assert found["figures"]["logistic regression: loss"]["original"] is None
    assert found["figures"]["logistic regression: loss"]["twins"] is None


def test_without_rows_there_are_no_figures():
    assert compare_attacks(None, {"retain": model(0)["retain"]}, [])["figures"] == {}
