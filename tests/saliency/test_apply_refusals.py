"""What a mask cannot hold, or does not fit, is refused with the reason."""

import pytest
import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.apply import MaskedUpdates


class Shampoo(torch.optim.SGD):
    """By its name; and a subclass, which is not the class that is known."""


class Mystery(torch.optim.AdamW):
    pass


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (torch.optim.Muon, "whole matrices"), (torch.optim.Adafactor, "rows and columns"), (Shampoo, "whole matrices"),
        (torch.optim.LBFGS, "all weights"), (torch.optim.ASGD, "shrinks"), (torch.optim.SparseAdam, "sparse"),
        (Mystery, "not known"),
    ],
)  # fmt: skip
def test_optimizers_that_are_not_elementwise_are_refused(kind, reason):
    model = nn.Linear(3, 3, bias=False)
    lens = MaskedUpdates({"weight": torch.ones(3, 3, dtype=torch.bool)}, model)
    with pytest.raises(UserError, match=f"{kind.__name__}.*{reason}.*adamw_torch"):
        lens.attach(kind(model.parameters(), lr=0.1))


def test_other_optimizers_that_are_refused(monkeypatch):
    model = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    MaskedUpdates({"weight": torch.eye(2, dtype=torch.bool)}, model).attach(optimizer)
    model.weight.grad = torch.ones(2, 2)
    optimizer.step()
    with pytest.raises(UserError, match="closure"):
        optimizer.step(lambda: None)
    fresh = MaskedUpdates({"weight": torch.ones(2, 2, dtype=torch.bool)}, model)
    with pytest.raises(UserError, match="has taken steps"):
        fresh.attach(optimizer)
    with pytest.raises(UserError, match="does not train"):
        fresh.attach(torch.optim.SGD(nn.Linear(2, 2).parameters()))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match="DeepSpeed"):
        fresh.attach(torch.optim.SGD(model.parameters()))


def test_masks_that_do_not_fit_are_refused():
    model = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3, dtype=torch.bool), "bias": torch.ones(2, dtype=torch.bool)}
    for bad, reason in [
        ({"weight": good["weight"]}, "nothing for bias"),
        (good | {"other": good["bias"]}, "other, which is not in this model"),
        (good | {"weight": good["weight"].T}, "shape"),
        (good | {"weight": good["weight"].float()}, "not boolean"),
        ({name: torch.zeros_like(mask) for name, mask in good.items()}, "no weight"),
    ]:
        with pytest.raises(UserError, match=reason):
            MaskedUpdates(bad, model)
    model.bias.requires_grad_(False)
    with pytest.raises(UserError, match="bias, which is frozen"):
        MaskedUpdates(good, model)
    MaskedUpdates(good | {"bias": torch.zeros(2, dtype=torch.bool)}, model)
