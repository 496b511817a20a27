"""Whatever the optimizer does, weights outside the mask keep their bits, and the others move as without a mask."""

import itertools
import math

import pytest
import torch
from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.apply import MaskedUpdates, freeze_buffers

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "momentum_fused": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "sgd_maximize": (torch.optim.SGD, {"maximize": True}),
    "adam": (torch.optim.Adam, {"amsgrad": True}),
    "adam_fused": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {}),
    "adamw_foreach": (torch.optim.AdamW, {"foreach": True, "maximize": True}),
    "adamw_fused": (torch.optim.AdamW, {"fused": True}),
    "adamw_tensor_lr": (torch.optim.AdamW, {"lr": torch.tensor(0.01)}),
    "nadam": (torch.optim.NAdam, {"decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {}),
    "adamax": (torch.optim.Adamax, {"foreach": True}),
    "adagrad": (torch.optim.Adagrad, {"initial_accumulator_value": 0.1, "maximize": True}),
    "adadelta": (torch.optim.Adadelta, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.5, "centered": True, "maximize": True}),
    "rprop": (torch.optim.Rprop, {"maximize": True}),
}
DECAYED = [name for name in OPTIMIZERS if name != "rprop"]


def make_optimizer(name: str, parameters, decay: float = 0.0, **more) -> torch.optim.Optimizer:
    kind, options = OPTIMIZERS[name]
    options = {"lr": 0.01} | options | more | ({} if name == "rprop" else {"weight_decay": decay})
    return kind(parameters, **options)


def perceptron(dtype=torch.float32, seed: int = 0) -> nn.Module:
    """With BatchNorm, a tensor of more than one chunk's tail, and weights that are -0.0."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 4)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[::3] = -0.0
    return model


def adapted() -> nn.Module:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["0", "3"], modules_to_save=["4"], init_lora_weights=False)
    return peft.get_peft_model(perceptron(), config)


def masks_for(model: nn.Module, seed: int = 1) -> dict[str, torch.Tensor]:
    """Half of the weights; of one tensor none, of one all."""
    generator = torch.Generator().manual_seed(seed)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    masks = {name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in trained.items()}
    names = list(masks)
    masks[names[1]].fill_(False)
    masks[names[-1]].fill_(True)
    return masks


def bits(tensor: torch.Tensor) -> torch.Tensor:
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().clone().view(width) if tensor.is_floating_point() else tensor.detach().clone()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: bits(t) for name, t in (*model.named_parameters(), *model.named_buffers())}


def assert_frozen(before: dict[str, torch.Tensor], model: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    """Same bits outside the masks (signs of zeros among them); many weights inside have moved."""
    moved = selected = 0
    for name, after in snapshot(model).items():
        mask = masks.get(name, torch.zeros(after.shape, dtype=torch.bool))
        assert torch.equal(before[name][~mask], after[~mask]), name
        moved += int((before[name] != after)[mask].sum())
        selected += int(mask.sum())
    assert moved > 0.4 * selected


def train(model, optimizer, lens, steps: int = 50, clip: float | None = None, accumulation: int = 1) -> None:
    dtype = next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        for _ in range(accumulation):
            model.train()
            freeze_buffers(model)
            output = model(torch.randn(4, 6, generator=generator).to(dtype))
            (output.square().sum() / accumulation).backward()
        lens.mask_gradients()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("make", [perceptron, adapted])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_after_fifty_steps(make, name):
    decays = (0.0, 0.1) if name in DECAYED else (0.0,)
    for decay, clip, accumulation in itertools.product(decays, (None, 0.5), (1, 2)):
        model = make()
        masks = masks_for(model)
        lens = MaskedUpdates(masks, model)
        optimizer = make_optimizer(name, [p for p in model.parameters() if p.requires_grad], decay)
        lens.attach(optimizer)
        before = snapshot(model)
        train(model, optimizer, lens, clip=clip, accumulation=accumulation)
        assert_frozen(before, model, masks)
        assert optimizer.param_groups[0].get("weight_decay", 0) == decay


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["sgd", "adamw", "adamw_fused"])
def test_other_precisions(dtype, name):
    model = perceptron(dtype)
    masks = masks_for(model)
    lens = MaskedUpdates(masks, model)
    optimizer = make_optimizer(name, model.parameters(), 0.1)
    lens.attach(optimizer)
    before = snapshot(model)
    train(model, optimizer, lens)
    assert_frozen(before, model, masks)


def apply_gradients(weights, gradients, optimizer) -> None:
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_selected_weights_move_as_under_the_plain_optimizer(name, decay, dtype):
    if decay and name not in DECAYED:
        pytest.skip("has no weight decay")
    model, plain = perceptron(dtype), perceptron(dtype)
    masks = masks_for(model)
    optimizer, other = (make_optimizer(name, m.parameters(), decay) for m in (model, plain))
    MaskedUpdates(masks, model).attach(optimizer)
    generator = torch.Generator().manual_seed(3)
    shapes = [p.shape for p in model.parameters()]
    steps = [[torch.randn(shape, generator=generator).to(dtype) for shape in shapes] for _ in range(20)]
    apply_gradients(list(model.parameters()), steps, optimizer)
    zeroed = [[torch.where(m, g, 0) for g, m in zip(step, masks.values(), strict=True)] for step in steps]
    apply_gradients(list(plain.parameters()), zeroed, other)
    # 16 bits: a fused kernel decays and updates in one go and rounds once, not twice; foreach rounds the factor.
    exact = not (decay and ("fused" in name or "foreach" in name) and dtype == torch.bfloat16)
    for (key, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        a, b = a[masks[key]], b[masks[key]]
        torch.testing.assert_close(a, b, rtol=0 if exact else 0.1, atol=0 if exact else 0.05)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["momentum", "adam_fused", "adamw", "adamw_fused"])
def test_a_mask_of_all_weights_changes_nothing(name, decay):
    models = [perceptron(torch.bfloat16), perceptron(torch.bfloat16)]
    for model, masked in zip(models, (True, False), strict=True):
        optimizer = make_optimizer(name, model.parameters(), decay)
        lens = MaskedUpdates({n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}, model)
        if masked:
            lens.attach(optimizer)
        else:
            lens.mask_gradients = lambda: None
        train(model, optimizer, lens, clip=1.0)
    assert all(
        torch.equal(a, b) for a, b in zip(snapshot(models[0]).values(), snapshot(models[1]).values(), strict=True)
    )


def one_layer(mask, **options):
    """A single linear layer without bias, all of its weights 1."""
    model = nn.Linear(2, 2, bias=False)
    nn.init.ones_(model.weight)
    lens = MaskedUpdates({"weight": torch.tensor(mask)}, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, **options)
    lens.attach(optimizer)
    return model, lens, optimizer


def test_infinite_gradients_outside_the_mask_do_no_harm():
    model, lens, optimizer = one_layer([[True, False], [False, True]])
    model.weight.grad = torch.tensor([[1.0, math.inf], [math.nan, 2.0]])
    lens.mask_gradients()
    assert model.weight.grad.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert nn.utils.clip_grad_norm_(model.parameters(), 100).item() == pytest.approx(5**0.5)
    optimizer.step()
    assert model.weight.tolist() == [[0.5, 1.0], [1.0, 0.0]]


def test_a_norm_that_is_nan_breaks_only_selected_weights():
    model, lens, optimizer = one_layer([[True, False], [False, True]])
    model.weight.grad = torch.tensor([[math.nan, 1.0], [1.0, 1.0]])
    lens.mask_gradients()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert model.weight.isnan().tolist() == [[True, False], [False, True]]
    assert model.weight[0, 1] == model.weight[1, 0] == 1


def test_weight_decay_by_hand():
    """SGD: θ ← θ - lr·(g + λθ) where selected; the gradient is masked even if nobody asked for it."""
    model, lens, optimizer = one_layer([[True, False], [False, True]], weight_decay=0.2)
    model.weight.grad = torch.full((2, 2), 0.6)
    optimizer.step()
    torch.testing.assert_close(model.weight.data, torch.tensor([[0.6, 1.0], [1.0, 0.6]]))


def test_tensors_outside_the_mask_cost_no_state():
    model = perceptron()
    masks = masks_for(model)
    lens = MaskedUpdates(masks, model)
    optimizer = make_optimizer("adamw", model.parameters(), 0.1)
    lens.attach(optimizer)
    train(model, optimizer, lens, steps=1)
    without = [name for name, p in model.named_parameters() if p not in optimizer.state]
    assert without == [name for name, mask in masks.items() if not mask.any()] != []


@pytest.mark.parametrize("name", ["momentum", "adam_fused", "adamw", "adamw_fused"])
@pytest.mark.parametrize("overflow", [False, True])
def test_loss_scaling(name, overflow):
    """A scaled gradient is decayed as an unscaled one; an overflow inside the mask skips decay and update alike."""
    results = []
    for scale in (1.0, 1024.0):
        model = perceptron()
        masks = masks_for(model)
        optimizer = make_optimizer(name, model.parameters(), 0.1)
        MaskedUpdates(masks, model).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        before = snapshot(model)
        for _ in range(3):
            scaler.scale(model(torch.ones(4, 6)).square().sum() * 0.1).backward()
            if overflow:
                model[4].bias.grad.fill_(math.inf)  # selected as a whole
            scaler.step(optimizer)
            scaler.update(scale)
            optimizer.zero_grad()
        if overflow:
            weights = {key: value for key, value in snapshot(model).items() if key in masks}
            assert all(torch.equal(before[key], value) for key, value in weights.items())
        results.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_channels_last():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(20, 2)).to(memory_format=torch.channels_last)
    masks = masks_for(model)
    lens = MaskedUpdates(masks, model)
    optimizer = make_optimizer("adamw", model.parameters(), 0.1)
    lens.attach(optimizer)
    before = snapshot(model)
    for _ in range(5):
        model(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_frozen(before, model, masks)


def test_buffers_are_frozen_however_they_are_kept():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False), nn.Unflatten(1, (2, 2)),
        nn.InstanceNorm1d(2, track_running_stats=True), nn.Dropout(0.5), nn.Flatten(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2)),
    )  # fmt: skip
    model.train()
    freeze_buffers(model)
    before = {name: bits(buffer) for name, buffer in model.named_buffers()}
    model(torch.randn(8, 4)).sum().backward()
    assert len(before) > 6 and all(torch.equal(before[name], bits(b)) for name, b in model.named_buffers())
    assert model[0].training and model[5].training and not model[2].training


def test_resuming_needs_the_same_mask():
    model = perceptron()
    masks = masks_for(model)
    runs = [make_optimizer("adamw", model.parameters(), 0.1) for _ in range(3)]
    lens = MaskedUpdates(masks, model)
    lens.attach(runs[0])
    train(model, runs[0], lens, steps=3)
    before = snapshot(model)
    lens.attach(runs[1])
    runs[1].load_state_dict(runs[0].state_dict())
    train(model, runs[1], lens, steps=3)
    assert_frozen(before, model, masks)
    MaskedUpdates(masks_for(model, seed=5), model).attach(runs[2])
    runs[2].load_state_dict(runs[0].state_dict())
    before = snapshot(model)
    with pytest.raises(UserError, match="momentum for weights outside"):
        runs[2].step()
    assert all(torch.equal(before[name], after) for name, after in snapshot(model).items())


def test_accelerate_wraps_it():
    import accelerate

    model = perceptron()
    masks = masks_for(model)
    lens = MaskedUpdates(masks, model)
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = accelerator.prepare(make_optimizer("adamw", model.parameters(), 0.1))
    lens.attach(optimizer)
    lens.attach(optimizer.optimizer)  # the same once more
    before = snapshot(model)
    train(model, optimizer, lens)
    assert_frozen(before, model, masks)
    assert len(optimizer.optimizer._optimizer_step_pre_hooks) == 1


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["AdamW8bit", "Adam8bit", "Lion8bit", "SGD8bit", "RMSprop8bit", "AdamW"])
def test_eight_bits(name, decay):
    """0 is not among the codes that rounding may choose, so momentum would creep into weights outside the mask."""
    optimizers = pytest.importorskip("bitsandbytes").optim
    model = nn.Linear(64, 128)
    with torch.no_grad():
        model.weight[::3] = -0.0
    masks = masks_for(model) | {"bias": torch.rand(128) < 0.5}
    masks["weight"][:8] = False
    options = {"lr": 0.01, "weight_decay": decay} | ({"momentum": 0.9} if name == "SGD8bit" else {})
    runs = [getattr(optimizers, name)(model.parameters(), **options) for _ in range(3)]
    lens = MaskedUpdates(masks, model)
    before = snapshot(model)
    for run, previous in zip(runs[:2], [None, runs[0]], strict=True):
        lens.attach(run)
        if previous:
            run.load_state_dict(previous.state_dict())
        for _ in range(10):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            lens.mask_gradients()
            run.step()
    assert_frozen(before, model, masks)
    MaskedUpdates({key: ~mask for key, mask in masks.items()}, model).attach(runs[2])
    runs[2].load_state_dict(runs[1].state_dict())
    with pytest.raises(UserError, match="momentum for weights outside"):
        runs[2].step()
