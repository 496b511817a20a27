"""Disturbances: every model the same way, copies only, and figures that tell hiding from forgetting."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t
from toy import SETUPS, splits_of, text_rows

from hf_unlearn.evaluation.disturbing_rows import FEW_ROWS, choose_rows, near_and_far_rows, paraphrased_rows
from hf_unlearn.evaluation.durability import cell, lies_apart, step_curve
from hf_unlearn.evaluation.protocols import PROTOCOLS
from hf_unlearn.evaluation.relearn import fine_tuned_copy
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.evaluation.stress import MARGIN, NO_SURVIVAL, side_by_side, stress
from hf_unlearn.report.robustness import curve_rows, grid_rows, robustness_rows
from hf_unlearn.report.screen import render_stress

SHORT = replace(PROTOCOLS["ours"], steps=3, marks=(1, 2, 3))
KINDS = ["untouched", "kept_rows", "unrelated_rows", "few_forgotten_rows", "related_rows"]
LARGER = {"forget": 24, "retain": 24, "validation_tau": 4, "validation_stop": 4, "test": 24}


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("kind", ["image", "lm"])
def test_the_block_and_that_nothing_else_changes(kind):
    model, splits, task = SETUPS[kind]()
    models = {"original": None, "unlearned": model, "twin 1": copy.deepcopy(model), "twin 2": copy.deepcopy(model)}
    model.train()
    before, state = weights(model), torch.get_rng_state()
    block = stress(models, task, splits, learning_rate=1e-2, protocol=SHORT)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) and model.training
    assert torch.equal(state, torch.get_rng_state())
    assert block == stress(models, task, splits, learning_rate=1e-2, protocol=SHORT)
    assert block != stress(models, task, splits, learning_rate=1e-2, protocol=SHORT, seed=1)
    json.dumps(block, allow_nan=False)
    assert block["rows"] == {
        "kept_rows": 30, "unrelated_rows": 7, "few_forgotten_rows": 1, "related_rows": 4,
        "measured": 10, "unseen": 14, "validation": 19,
    }  # fmt: skip
    assert list(block["cells"]) == ["as_saved", "int8", "nf4"]
    for cells in block["cells"].values():
        assert list(cells) == KINDS
        for figures in cells.values():  # the twins are the same model, and are disturbed in the same way
            for found in figures.values():
                assert found["original"] is None and found["unlearned"] == pytest.approx(found["twins"]["mean"])
                assert found["difference"] == pytest.approx(0) and found["twins"]["spread"] == pytest.approx(0)
                assert not found["apart"]
    losses = {(w, k): f["forget_loss"]["unlearned"] for w, c in block["cells"].items() for k, f in c.items()}
    assert len(set(losses.values())) == 15  # every cell is another model
    assert block["not_checked"] == []
    text = render_stress(block)
    assert "as saved" in text and "relearning: 1 forgotten rows" in text and max(map(len, text.splitlines())) <= 100
    assert len(grid_rows(block, "forget_accuracy")) == 6 and len(robustness_rows(block)) == 1 + 4 * 15
    assert robustness_rows(None) == [] and [len(row) for row in curve_rows(block)] == [5] * 5


def test_cells_are_the_models_that_they_say():
    """Fine-tuned first, then quantized; the curve passes through the cells at its ends."""
    from hf_unlearn.models.quantized import round_to_nf4

    model, splits, task = SETUPS["image"]()
    block = stress({"unlearned": model}, task, splits, learning_rate=1e-9, protocol=SHORT)
    rows = choose_rows(model, task, splits, most=96, seed=0)
    rate = block["protocol"]["learning_rate"]
    tuned = fine_tuned_copy(model, task, rows.tuned_on["related_rows"], steps=3, learning_rate=rate)
    round_to_nf4(tuned)
    found = block["cells"]["nf4"]["related_rows"]
    own = score(tuned, task, rows.measured)
    assert found["forget_loss"]["unlearned"] == pytest.approx(float(own.loss.mean()))
    assert found["forget_accuracy"]["unlearned"] == own.accuracy and found["forget_loss"]["twins"] is None
    assert found["forget_loss"]["difference"] is None and found["forget_loss"]["apart"] is None
    curve, saved = block["curve"], block["cells"]["as_saved"]
    line = curve["figures"]["forget_loss"]["unlearned"]
    assert curve["steps"] == [0, 1, 2, 3] and curve["rows"] == "few_forgotten_rows" and len(line) == 4
    assert line[0] == saved["untouched"]["forget_loss"]["unlearned"]
    assert line[-1] == saved["few_forgotten_rows"]["forget_loss"]["unlearned"]
    assert not set(rows.measured.indices) & set(rows.tuned_on["few_forgotten_rows"].indices)
    assert set(rows.validation.indices).isdisjoint(splits.test.indices)


def test_what_is_not_rounded_is_not_called_tried():
    """Of a network of convolutions the cells of 4 bits repeat those as saved."""
    from transformers import ResNetConfig, ResNetForImageClassification

    _, splits, task = SETUPS["image"]()
    labels = {"num_labels": len(task.label_names), "num_channels": task.channels}
    model = ResNetForImageClassification(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], **labels))
    block = stress({"unlearned": model}, task, splits, learning_rate=1e-3, protocol=SHORT)
    assert block["cells"]["nf4"] == block["cells"]["as_saved"]
    assert [text.split(":")[0] for text in block["not_checked"]] == [
        "What int8 weights bring back", "What nf4 weights bring back"
    ]  # fmt: skip
    assert "What nf4 weights bring back: 0 %" in " ".join(render_stress(block).split())


def learned():
    """A model that knows forget and retain rows, its splits and task, and a twin that knows the retain rows."""
    torch.manual_seed(0)
    model, splits, task = SETUPS["image"](roles=LARGER)
    twin = copy.deepcopy(model)
    for rows, learner in ((splits.forget, model), (splits.retain, twin)):
        optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
        batch = task.collate(rows.__getitems__(range(24)))
        for _ in range(80):
            optimizer.zero_grad()
            task.predict(learner, batch).loss.mean().backward()
            optimizer.step()
    return model, twin, splits, task


def test_a_model_that_hides_is_found_by_relearning():
    """Its head is scaled to nothing, its features are still the original's; the twin has never seen the rows."""
    model, twin, splits, task = learned()
    original = copy.deepcopy(model)
    with torch.no_grad():
        model.classifier.weight.mul_(-0.05)
    protocol = replace(PROTOCOLS["ours"], learning_rate=1e-2, steps=30)
    models = {"original": original, "unlearned": model, "twin 1": twin, "twin 2": copy.deepcopy(twin)}
    block = stress(models, task, splits, learning_rate=1, protocol=protocol)
    cells = {w: c["few_forgotten_rows"]["forget_accuracy"] for w, c in block["cells"].items()}
    before = block["cells"]["as_saved"]["untouched"]["forget_accuracy"]
    assert before["original"] > 0.9 > 0.5 > before["unlearned"]
    gained = cells["as_saved"]["difference"] - before["difference"]
    assert before["difference"] < 0 < cells["as_saved"]["difference"] and gained > 0.15
    assert abs(cells["int8"]["difference"] - cells["as_saved"]["difference"]) < 0.1
    assert block["protocol"]["learning_rate"] == 1e-2


def test_the_rate_is_halved_until_the_original_survives():
    model, _, splits, task = learned()
    splits.validation_tau = splits.validation_stop = splits.forget  # rows that it knows: there is accuracy to lose
    rows = choose_rows(model, task, splits, most=640, seed=0)
    block = stress({"original": model, "unlearned": model}, task, splits, learning_rate=0.1)
    used = block["protocol"]
    halvings = np.log2(used["asked_learning_rate"] / used["learning_rate"])
    assert used["asked_learning_rate"] == 0.1 and halvings == round(halvings) >= 1 and used["survives"]
    assert used["before"] - used["after"] <= MARGIN and used["survivor"] == "original"
    for rate, survives in ((used["learning_rate"], True), (2 * used["learning_rate"], False)):
        tuned = fine_tuned_copy(model, task, rows.tuned_on["kept_rows"], steps=20, learning_rate=rate)
        assert (score(tuned, task, rows.validation).accuracy >= used["before"] - MARGIN) == survives
    assert NO_SURVIVAL not in block["not_checked"]


def test_published_protocols_keep_their_rate():
    assert (PROTOCOLS["wmdp"].steps, PROTOCOLS["wmdp"].learning_rate) == (15, 1e-5)
    muse = PROTOCOLS["muse"]
    assert (muse.steps, muse.learning_rate, muse.batch_size) == (150, 1e-5, 4) and {50, 100, 150} < set(muse.marks)
    model, splits, task = SETUPS["image"]()
    found = stress({"unlearned": model}, task, splits, learning_rate=1e-2, protocol=PROTOCOLS["wmdp"])
    assert (found["protocol"]["learning_rate"], found["protocol"]["name"]) == (1e-5, "wmdp")
    assert found["curve"]["steps"] == [0, 1, 2, 5, 10, 15]


def test_a_cell_by_hand():
    """Twins 0.1, 0.2, 0.3: mean 0.2, s 0.1; with k = 3 a fourth lies within t(0.975, 2)·0.1·√(4/3) = 0.497."""
    figures = {
        "original": {"forget_accuracy": 1.0, "forget_loss": 0.1},
        "unlearned": {"forget_accuracy": 0.71, "forget_loss": None},
        **{f"twin {k}": {"forget_accuracy": k / 10, "forget_loss": 0.5} for k in (1, 2, 3)},
    }
    found = cell(figures, 100)["forget_accuracy"]
    assert found["twins"] == {k: pytest.approx(v) for k, v in
                              {"mean": 0.2, "lowest": 0.1, "highest": 0.3, "spread": 0.1}.items()}  # fmt: skip
    assert found["difference"] == pytest.approx(0.51) and found["apart"] is True and found["original"] == 1.0
    reach = t.ppf(0.975, 2) * 0.1 * np.sqrt(4 / 3)
    assert reach == pytest.approx(0.497, abs=1e-3)
    assert lies_apart(reach - 0.01, [0.1, 0.2, 0.3]) is False and lies_apart(-reach - 0.01, [0.1, 0.2, 0.3]) is True
    assert lies_apart(9.0, [0.1]) is None and lies_apart(9.0, [0.5, 0.5]) is None
    assert lies_apart(0.05, [0.5, 0.5, 0.5], least=0.1) is False  # one row of ten is no difference
    loss = cell(figures, 100)["forget_loss"]
    assert loss["unlearned"] is None and loss["difference"] is None and loss["twins"]["mean"] == 0.5
    curve = step_curve("few_forgotten_rows", [0, 1], {name: [each, each] for name, each in figures.items()})
    assert curve["figures"]["forget_accuracy"]["twins"] == {
        "mean": [pytest.approx(0.2)] * 2, "lowest": [0.1] * 2, "highest": [0.3] * 2
    }  # fmt: skip


def test_side_by_side_by_hand():
    pairs = {
        "unlearned": ({"a": 0.1, "b": None}, {"a": 0.6, "b": 1.0}),
        "twin 1": ({"a": 0.0, "b": 1.0}, {"a": 0.1, "b": 1.0}),
        "twin 2": ({"a": 0.2, "b": 1.0}, {"a": 0.5, "b": 1.0}),
    }
    found = side_by_side(pairs)
    assert found["original"] is None and found["twins"] == {
        "before": {"a": pytest.approx(0.1), "b": 1.0},
        "after": {"a": pytest.approx(0.3), "b": 1.0},
    }
    assert set(found["beyond_twins"]) == {"a"}
    a = found["beyond_twins"]["a"]
    assert (a["change"], a["beyond"]) == (pytest.approx(0.5), pytest.approx(0.3))
    assert a["twins"] == {"lowest": pytest.approx(0.1), "highest": pytest.approx(0.3)}
    assert side_by_side({"unlearned": pairs["unlearned"]})["beyond_twins"] is None


def test_adapters_are_disturbed_as_the_model_that_they_make(tmp_path):
    from hf_unlearn.models import lora

    model, splits, task = SETUPS["lm"]()
    adapted = lora.add_lora(copy.deepcopy(model), r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    block = stress({"unlearned": adapted, "twin 1": model}, task, splits, learning_rate=1e-2, protocol=SHORT)
    few = block["cells"]["nf4"]["few_forgotten_rows"]["forget_loss"]  # a fresh adapter changes nothing
    assert few["difference"] == pytest.approx(0, abs=1e-5)


def test_related_rows_are_the_copies_and_unrelated_ones_are_not():
    model, splits, task = SETUPS["image"]()
    forget = splits.forget.indices[0]
    splits.retain = splits.retain.at([*splits.retain.indices[:5], forget, *splits.retain.indices[5:]])
    near, far = near_and_far_rows(model, task, splits, most=96)
    assert len(near) == 4 and forget in near.indices and len(far) == 7 and not set(near.indices) & set(far.indices)
    assert len(near_and_far_rows(model, task, splits, most=5)[1]) == 5


def test_one_forget_row():
    model, splits, task = SETUPS["image"]()
    splits.forget = splits.forget.select([0])
    block = stress({"unlearned": model}, task, splits, learning_rate=1e-3, protocol=SHORT)
    assert "few_forgotten_rows" not in block["cells"]["as_saved"] and block["not_checked"] == [FEW_ROWS]
    assert block["rows"]["measured"] == 1 and block["curve"]["rows"] == "related_rows"


def test_removed_classes_have_unseen_rows_of_their_own():
    model, splits, task = SETUPS["image"]()
    splits.unseen_forgotten = splits.test.select(range(5))
    splits.test = splits.test.select(range(5, 14))
    block = stress({"unlearned": model}, task, splits, learning_rate=1e-3, protocol=SHORT)
    found = block["cells"]["as_saved"]["untouched"]
    assert found["test_accuracy"]["unlearned"] == score(model, task, splits.test).accuracy
    assert found["unseen_accuracy"]["unlearned"] == score(model, task, splits.unseen_forgotten).accuracy
    splits.unseen_forgotten = splits.test.select([])
    found = stress({"unlearned": model}, task, splits, learning_rate=1e-3, protocol=SHORT)["cells"]["int8"][
        "kept_rows"
    ]
    assert found["unseen_accuracy"]["unlearned"] is None and found["membership_auc"]["unlearned"] is None


def test_paraphrased_questions():
    model, _, task = SETUPS["lm"]()
    rows = text_rows(74)
    asked = [" ".join(reversed(text.split())) for text in rows["question"]]
    splits = splits_of(rows.add_column("paraphrased_question", asked), task)
    other = paraphrased_rows(task, splits.forget)
    same = splits.forget.select([2])[0]["input_ids"].tolist()
    ids = other.select([2])[0]["input_ids"].tolist()
    assert same != ids and sorted(same) == sorted(ids) and task.columns["question"] == "question"
    block = stress({"unlearned": model}, task, splits, learning_rate=1e-3, protocol=SHORT)
    assert list(block["cells"]["nf4"]) == [*KINDS, "paraphrases"] and block["rows"]["paraphrases"] == 1
    found = block["paraphrases"]["questions"]
    assert found["unlearned"]["before"]["forget_loss"] != found["unlearned"]["after"]["forget_loss"]
    assert np.isfinite(found["unlearned"]["after"]["forget_loss"])
    assert paraphrased_rows(task, splits_of(text_rows(74), task).forget) is None
