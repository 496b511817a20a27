"""Weight distance against values computed by hand."""

import copy

import pytest
import torch
from toy import text_setup, vit

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.weight_distance import weight_distance
from hf_unlearn.models import lora


def test_each_layer_and_the_whole_by_hand():
    a = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1, bias=False), torch.nn.LayerNorm(1))
    b = copy.deepcopy(a)
    with torch.no_grad():
        for model, values in ((a, [3.0, 4.0, 1.0, 2.0, 0.0, 1.0]), (b, [3.0, 0.0, 4.0, 1.0, 0.0, 0.0])):
            for parameter, part in zip(model.parameters(), torch.tensor(values).split([2, 1, 1, 1, 1]), strict=True):
                parameter.copy_(part.view_as(parameter))
    found = weight_distance(a, b)
    # Layer 0: differences (0, 4, -3) of (3, 0, 4); layer 1: 1 of 1; layer 2: (0, 1) of (0, 0).
    assert found.layers == pytest.approx({"0": 1.0, "1": 1.0, "2": None})
    assert found.total == pytest.approx(((16 + 9 + 1 + 1) / (25 + 1)) ** 0.5)


def test_same_weights_are_at_distance_0_and_other_layers_are_refused():
    model = vit()
    assert weight_distance(model, model).total == 0 and set(weight_distance(model, model).layers.values()) == {0.0}
    with pytest.raises(UserError, match="do not have the same layers"):
        weight_distance(model, vit(layers=1))


def test_an_adapter_counts_by_its_effective_weights():
    model, _, task = text_setup(torch.float64)
    plain = copy.deepcopy(model)
    adapted = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type).double()
    assert weight_distance(adapted, plain).total == 0  # a fresh adapter changes nothing
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    found = weight_distance(adapted, plain)
    merged = lora.merge(adapted)
    assert found == weight_distance(merged, plain) and found.total > 0
    assert found.layers["bert.embeddings.word_embeddings"] == 0
    assert hasattr(adapted, "peft_config") and any("lora_B" in n for n, _ in adapted.named_parameters())
