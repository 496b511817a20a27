"""Disturbances: every model the same way, copies only, and figures that tell hiding from forgetting."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from toy import SETUPS, splits_of, text_rows

from hf_unlearn.evaluation import stress as stress_module
from hf_unlearn.evaluation.stress import paraphrased_rows, quantized_int8, related_rows, side_by_side, stress
from hf_unlearn.report.robustness import HEADER, robustness_rows


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("kind", ["image", "lm"])
def test_the_block_and_that_nothing_else_changes(kind):
    model, splits, task = SETUPS[kind]()
    models = {"original": None, "unlearned": model, "twin 1": copy.deepcopy(model), "twin 2": copy.deepcopy(model)}
    model.train()
    before, state = weights(model), torch.get_rng_state()
    block = stress(models, task, splits, learning_rate=1e-2, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) and model.training
    assert torch.equal(state, torch.get_rng_state())
    json.dumps(block, allow_nan=False)
    few, related = block["relearning"]["few_forget_rows"], block["relearning"]["related_retain_rows"]
    assert (few["rows"], few["measured_rows"]) == (1, 10) and (related["rows"], related["measured_rows"]) == (4, 11)
    for found in (few, related, block["quantization"]["int8"]):
        # The twins are the same model, and are disturbed in the same way.
        assert found["original"] is None and found["unlearned"] == found["twins"]
        assert found["beyond_twins"]["forget_loss"]["beyond"] == pytest.approx(0)
    assert few["unlearned"]["before"] != few["unlearned"]["after"]
    assert ("int4" in block["quantization"]) == stress_module.can_quantize_int4()
    rows = robustness_rows(block)
    assert rows[0] == HEADER and len(rows) == 1 + 4 * (3 + ("int4" in block["quantization"]))
    assert all(len(row) == len(HEADER) for row in rows) and robustness_rows(None) == []


def test_a_model_that_hides_is_found_by_relearning():
    """Its head is scaled to nothing, its features are still the original's; the twin has never seen the rows."""
    torch.manual_seed(0)
    model, splits, task = SETUPS["image"](roles={"forget": 24, "retain": 24, "validation_tau": 4,
                                                 "validation_stop": 4, "test": 24})  # fmt: skip
    twin = copy.deepcopy(model)
    for rows, learner in ((splits.forget, model), (splits.retain, twin)):
        optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
        batch = task.collate(rows.__getitems__(range(24)))
        for _ in range(80):
            optimizer.zero_grad()
            task.predict(learner, batch).loss.mean().backward()
            optimizer.step()
    original = copy.deepcopy(model)
    with torch.no_grad():
        model.classifier.weight.mul_(-0.05)
    models = {"original": original, "unlearned": model, "twin 1": twin}
    found = stress(models, task, splits, learning_rate=1e-2, steps=30)["relearning"]["few_forget_rows"]
    assert found["original"]["before"]["forget_accuracy"] > 0.9 > 0.5 > found["unlearned"]["before"]["forget_accuracy"]
    beyond = found["beyond_twins"]["forget_accuracy"]
    assert beyond["beyond"] > 0.15 and beyond["twins"]["highest"] < 0.1


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


def test_int8_by_hand_and_against_torch():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(nn.Linear(2, 2, bias=False), Conv1D(3, 2))  # Conv1D: 3 outputs of 2 inputs
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[127.0, 1.4], [0.0, 0.0]]))
    rounded = quantized_int8(model.requires_grad_(False))
    assert rounded[0].weight.tolist() == [[127.0, 1.0], [0.0, 0.0]]
    assert model[0].weight[0, 1] == pytest.approx(1.4)
    weight = model[1].weight.detach().T  # (out, in)
    scale = weight.abs().amax(dim=1) / 127
    expected = torch.quantize_per_channel(weight, scale, torch.zeros(3, dtype=torch.int64), 0, torch.qint8)
    assert torch.allclose(rounded[1].weight.T, expected.dequantize(), atol=1e-7)


def test_int8_leaves_embeddings_and_a_tied_head_alone():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    rounded = quantized_int8(model)
    assert rounded.lm_head.weight is rounded.transformer.wte.weight
    assert torch.equal(rounded.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(rounded.transformer.h[0].mlp.c_fc.weight, model.transformer.h[0].mlp.c_fc.weight)


def test_adapters_are_disturbed_as_the_model_that_they_make(tmp_path):
    from hf_unlearn.models import lora

    model, splits, task = SETUPS["lm"]()
    adapted = lora.add_lora(copy.deepcopy(model), r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    block = stress({"unlearned": adapted, "twin 1": model}, task, splits, learning_rate=1e-2, steps=2)
    few = block["relearning"]["few_forget_rows"]  # a fresh adapter changes nothing
    assert few["unlearned"]["after"] == pytest.approx(few["twins"]["after"], abs=1e-5)


def test_related_rows_are_the_copies():
    model, splits, task = SETUPS["image"]()
    forget = splits.forget.indices[0]
    splits.retain = splits.retain.at([*splits.retain.indices[:5], forget, *splits.retain.indices[5:]])
    chosen = related_rows(model, task, splits).indices
    assert len(chosen) == 4 and forget in chosen


def test_one_forget_row():
    model, splits, task = SETUPS["image"]()
    splits.forget = splits.forget.select([0])
    block = stress({"unlearned": model}, task, splits, learning_rate=1e-3, steps=1)
    assert "few_forget_rows" not in block["relearning"] and len(block["not_checked"]) >= 1
    assert "related_retain_rows" in block["relearning"]


def test_paraphrased_questions():
    model, _, task = SETUPS["lm"]()
    rows = text_rows(74)
    asked = [" ".join(reversed(text.split())) for text in rows["question"]]
    splits = splits_of(rows.add_column("paraphrased_question", asked), task)
    other = paraphrased_rows(task, splits.forget)
    same = splits.forget.select([2])[0]["input_ids"].tolist()
    ids = other.select([2])[0]["input_ids"].tolist()
    assert same != ids and sorted(same) == sorted(ids) and task.columns["question"] == "question"
    found = stress({"unlearned": model}, task, splits, learning_rate=1e-3, steps=1)["paraphrases"]["questions"]
    assert found["unlearned"]["before"]["forget_loss"] != found["unlearned"]["after"]["forget_loss"]
    assert np.isfinite(found["unlearned"]["after"]["forget_loss"])
    assert paraphrased_rows(task, splits_of(text_rows(74), task).forget) is None
