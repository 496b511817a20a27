"""Gradient ascent, fine-tuning as published, boundary unlearning, MSG and LoTUS against values worked out by hand."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toy import SETUPS, image_setup, outputs, splits_of, text_rows, text_setup

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.methods.boundary import output_layer
from hf_unlearn.models.fgsm import SignedStep
from hf_unlearn.models.start import drawn_anew

ROLES = {"forget": 4, "retain": 8, "validation_tau": 4, "validation_stop": 4, "test": 4}
PLAIN = {"weight_decay": 0.0, "lr_scheduler_type": "constant"}


def make(method, folder, dtype=torch.float64, text=False, forget=4, **more):
    roles = ROLES | {"forget": forget}
    if text:
        model, _, task = text_setup(dtype)
        splits = splits_of(text_rows(sum(ROLES.values())), task, ROLES)
    else:
        model, splits, task = image_setup(dtype, roles=roles)
    options = {"output_dir": str(folder), "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8}
    kind = get_method(method)
    return kind(model, kind.config_class(**options | more), splits, task, quiet=True)


def images(rows):
    found = rows.__getitems__(range(len(rows)))
    pixels = torch.stack([row["pixel_values"] for row in found]).double()
    return pixels, torch.tensor([row["labels"] for row in found])


def mean_gradients(model, rows):
    pixels, labels = images(rows)
    slopes = torch.autograd.grad(
        cross_entropy(model(pixel_values=pixels).logits, labels), list(model.parameters()), allow_unused=True
    )
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(model.named_parameters(), slopes, strict=True)
    }


def assert_equal(model, expected):
    for name, p in model.named_parameters():
        assert (p - expected[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize(("method", "split", "sign"), [("gradient_ascent", "forget", 1), ("fine_tune", "retain", -1)])
def test_a_step_of_the_published_forms_is_plain_sgd_with_decay_of_all_weights(tmp_path, method, split, sign):
    more = {"variant": "paper"} if method == "fine_tune" else {}
    trainer = make(method, tmp_path, max_steps=1, learning_rate=0.3, **more)
    gradients = mean_gradients(trainer.model, getattr(trainer.splits, split))
    expected = {n: p * (1 - 0.3 * 5e-4) + sign * 0.3 * gradients[n] for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert_equal(trainer.model, expected)
    assert trainer.examples == len(getattr(trainer.splits, split)) and trainer.model.training


def test_the_published_settings(tmp_path):
    for method, variant, rate, passes in (
        ("gradient_ascent", {}, 1e-4, 10),
        ("fine_tune", {"variant": "paper"}, 0.01, 10),
        ("boundary_shrink", {}, 1e-5, 10),
        ("boundary_expanding", {}, 1e-5, 10),
        ("msg", {}, 1e-3, 5),
        ("lotus", {}, 1e-4, 10),
    ):
        args = make(method, tmp_path, **variant).args
        assert (args.learning_rate, args.num_train_epochs, args.max_grad_norm) == (rate, passes, 0)
        assert args.optim == ("adamw_torch" if method == "lotus" else "sgd") and args.disable_dropout is False
        assert args.weight_decay == (0 if method.startswith("boundary") else 5e-4)
        assert args.optim == "adamw_torch" or args.optim_args == "momentum=0.9"
    plain = make("fine_tune", tmp_path).args
    assert (plain.num_train_epochs, plain.weight_decay, plain.max_grad_norm, plain.variant) == (3, 0, 1, "plain")
    with pytest.raises(UserError, match="`variant` is 'papers'"):
        make("fine_tune", tmp_path, variant="papers")


def test_random_labels_are_salun_without_a_mask(tmp_path):
    trainer = make("salun", tmp_path, variant="paper", saliency=1, allow_true_label=True, mixing="sequential")
    assert trainer.lens is None and trainer.args.num_train_epochs == 10
    assert [phase.name for phase in trainer.schedule.phases[:2]] == ["forget pass", "retain pass"]


def test_boundary_shrink_finds_the_class_beyond_the_boundary(tmp_path):
    trainer = make("boundary_shrink", tmp_path, epsilon=0.4)
    found = trainer.prepare()["nearest"]
    pixels, labels = images(trainer.splits.forget)
    low, high = pixels.min(), pixels.max()
    assert low < -0.5 and high > 0.5  # normalised
    x = pixels.clone().requires_grad_()
    loss = cross_entropy(trainer.model(pixel_values=x).logits, labels, reduction="sum")
    moved = (pixels + 0.4 * (high - low) * torch.autograd.grad(loss, x)[0].sign()).clamp(low, high)
    expected, unmoved = (trainer.model(pixel_values=values).logits.argmax(1) for values in (moved, pixels))
    assert torch.equal(found, expected) and not torch.equal(expected, unmoved)
    wrong = int((expected != labels).sum())
    assert trainer.notes == [f"The step on the inputs led {wrong} of 4 forgotten rows into another class."]
    trainer.method_state = {"nearest": found}
    forget = outputs(trainer, ("forget",))["forget"]
    by_hand = cross_entropy(trainer.model(pixel_values=pixels).logits, expected)
    assert trainer.unlearning_loss(forget=forget).item() == pytest.approx(by_hand.item(), abs=1e-9)


def test_boundary_shrink_moves_the_embeddings_of_texts_but_not_of_special_tokens(tmp_path):
    trainer = make("boundary_shrink", tmp_path, text=True, epsilon=1.0, per_device_eval_batch_size=3)
    found = trainer.prepare()["nearest"]
    rows = trainer.splits.forget.__getitems__(range(4))
    batch = trainer.task.collate(rows)
    table = trainer.model.get_input_embeddings()
    real = table(batch["input_ids"]).detach()
    free = batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], torch.tensor([0, 2, 3, 4]))
    x = real.clone().requires_grad_()

    def logits(values):
        return trainer.model(inputs_embeds=values, attention_mask=batch["attention_mask"]).logits

    slope = torch.autograd.grad(cross_entropy(logits(x), batch["labels"], reduction="sum"), x)[0]
    low, high = real[free].amin(0), real[free].amax(0)
    moved = torch.where(free[:, :, None], torch.clamp(real + (high - low) * slope.sign(), low, high), real)
    assert torch.equal(found, logits(moved).argmax(1)) and not torch.equal(found, logits(real).argmax(1))
    step = SignedStep(trainer.model, trainer.task, 1.0)
    step.see([batch])
    assert (step.moved(batch) - moved).abs().max() < 1e-12 and (moved - real).abs().max() > 0.01
    for epsilon in (0, 1.5):
        with pytest.raises(UserError, match="`epsilon` is"):
            make("boundary_shrink", tmp_path, epsilon=epsilon)


def test_boundary_expanding_is_training_a_wider_layer_and_cutting_it(tmp_path):
    trainer = make("boundary_expanding", tmp_path, max_steps=3, learning_rate=0.2)
    wide = copy.deepcopy(trainer.model).train()
    extra = trainer.prepare()["extra"]
    wide.classifier = torch.nn.Linear(16, 5).double()
    with torch.no_grad():
        wide.classifier.weight.copy_(torch.cat([trainer.model.classifier.weight, extra[:, :-1]]))
        wide.classifier.bias.copy_(torch.cat([trainer.model.classifier.bias, extra[:, -1]]))
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.2, momentum=0.9)
    pixels, _ = images(trainer.splits.forget)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(wide(pixel_values=pixels).logits, torch.full((4,), 4)).backward()
        optimizer.step()
    trainer.train()
    expected = dict(wide.named_parameters())
    last = torch.cat([expected["classifier.weight"][4:], expected["classifier.bias"][4:, None]], 1)
    assert (trainer.method_state["extra"] - last).abs().max() < 1e-9 and (last - extra).abs().max() > 1e-3
    cut = {name: p[:4] if name.startswith("classifier") else p for name, p in expected.items()}
    assert_equal(trainer.model, cut)
    assert trainer.model(pixel_values=pixels).logits.shape == (4, 4) and trainer.model.config.num_labels == 4


def test_boundary_expanding_needs_one_output_layer():
    model = image_setup()[0]
    assert output_layer(model) is model.classifier
    model.classifier = torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.Linear(4, 4))
    with pytest.raises(UserError, match="has 2: use `method` boundary_shrink"):
        output_layer(model)


def test_msg_draws_the_weights_with_small_gradients_anew_and_slows_the_others(tmp_path):
    trainer = make("msg", tmp_path, max_steps=1, learning_rate=0.5, warmup_steps=0, **PLAIN)
    some = trainer.some_rows(trainer.splits.retain, 4)
    forget, retain = (mean_gradients(trainer.model, rows) for rows in (trainer.splits.forget, some))
    drawn = dict(drawn_anew(trainer.model, trainer.args.seed).named_parameters())
    expected, scale = copy.deepcopy(trainer.model), {}
    for name, p in expected.named_parameters():
        scale[name] = torch.ones_like(p)
        layer = name.startswith("vit.") and name.endswith(".weight") and p.dim() > 1
        if not layer:
            continue
        size = (retain[name] - forget[name]).abs().float().flatten()
        small = torch.zeros_like(size, dtype=torch.bool)
        small[size.argsort(stable=True)[: len(size) - int(0.7 * len(size) + 0.5)]] = True
        small = small.view(p.shape)
        with torch.no_grad():
            p.copy_(torch.where(small, drawn[name], p))
        scale[name] = torch.where(small, 1.0, 0.1)
    assert sum((s < 1).any().item() for s in scale.values()) == 13  # of two blocks of six, and the patches
    gradients = mean_gradients(expected, trainer.splits.retain)
    trainer.train()
    assert_equal(trainer.model, {n: p - 0.5 * scale[n] * gradients[n] for n, p in expected.named_parameters()})


def test_a_resumed_run_of_msg_is_the_run(tmp_path):
    whole = make("msg", tmp_path / "whole", max_steps=3, save_strategy="steps", save_steps=1)
    whole.train()
    again = make("msg", tmp_path / "again", max_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    assert_equal(again.model, dict(whole.model.named_parameters()))
    for name, value in (("drawn_share", 1), ("others_scale", -1)):
        with pytest.raises(UserError, match=f"`{name}` is {value}"):
            make("msg", tmp_path, **{name: value})


def test_lotus(tmp_path):
    trainer = make("lotus", tmp_path, forget=5, retain_share=0.5, alpha=3.0)
    assert len(trainer.train_dataset.streams["retain"]) == 4 and trainer.stream_sizes()["forget"].batch == 5
    accuracies = {}
    for name in ("forget", "validation_tau"):
        pixels, labels = images(getattr(trainer.splits, name))
        accuracies[name] = (trainer.model(pixel_values=pixels).logits.argmax(1) == labels).double().mean().item()
    trainer.method_state |= trainer.prepare()
    tau = math.exp(3 * (accuracies["forget"] - accuracies["validation_tau"]))
    assert float(trainer.method_state["temperature"]) == pytest.approx(tau, abs=1e-9) and tau != 1
    start = {name: trainer.method_state[f"logits_{name}"] for name in ("forget", "retain")}
    with torch.no_grad():
        for p in trainer.model.parameters():
            p += 0.05 * torch.randn_like(p)
    found = outputs(trainer)
    losses = []
    for key, name, rows in ((8, "forget", 5), (9, "retain", 4)):
        draws = [np.random.default_rng([trainer.args.seed, key, 0, row]).gumbel(size=(1, 4)) for row in range(rows)]
        noisy = start[name] + torch.tensor(np.concatenate(draws))
        target = (noisy / tau).softmax(1) if name == "forget" else torch.eye(4)[noisy.argmax(1)]
        losses.append(-(target * found[name].logits.log_softmax(1)).sum(1))
    by_hand = torch.cat(losses).mean()
    assert trainer.unlearning_loss(**found).item() == pytest.approx(by_hand.item(), abs=1e-9)


def unmeasured(trainer, monkeypatch, forget):
    """Accuracies on the forget rows, one after the other, and 0.5 on validation rows."""
    left = list(forget)

    def accuracy(rows):
        return 0.5 if rows is trainer.splits.validation_tau else left.pop(0)

    monkeypatch.setattr(trainer, "accuracy", accuracy)
    return trainer


THREE_PASSES = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "retain_share": 1.0}


@pytest.mark.parametrize(("forget", "steps"), [([0.4], 1), ([0.9, 0.9, 0.48], 2 * 4), ([0.9] * 3, 3 * 4)])
def test_lotus_ends_where_forget_rows_are_known_no_better_than_unseen_ones(tmp_path, monkeypatch, forget, steps):
    trainer = unmeasured(make("lotus", tmp_path, **THREE_PASSES), monkeypatch, forget)
    trainer.train()
    assert trainer.state.global_step == steps
    assert float(trainer.method_state["temperature"]) == pytest.approx(math.exp(2 * (forget[-1] - 0.5)), abs=1e-9)
    assert bool(trainer.notes) == (steps == 1)


def test_lotus_goes_on_from_a_checkpoint_as_it_went(tmp_path, monkeypatch):
    keep = {"save_strategy": "steps", "save_steps": 2} | THREE_PASSES
    whole = unmeasured(make("lotus", tmp_path / "whole", **keep), monkeypatch, [0.9, 0.8, 0.4])
    whole.train()
    for step, left in ((4, [0.4]), (8, [])):
        again = unmeasured(make("lotus", tmp_path / "again", **THREE_PASSES), monkeypatch, left)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert again.state.global_step == whole.state.global_step == 8
        assert_equal(again.model, dict(whole.model.named_parameters()))


def test_removed_classes_have_no_accuracy_to_keep(tmp_path):
    trainer = make("lotus", tmp_path)
    trainer.splits.forgotten_classes = (0,)
    assert float(trainer.prepare()["unseen_accuracy"]) == 0
    for name, value in (("alpha", -1.0), ("retain_share", 0)):
        with pytest.raises(UserError, match=f"`{name}` is {value}"):
            make("lotus", tmp_path, **{name: value})


@pytest.mark.parametrize("method", ["boundary_shrink", "boundary_expanding", "lotus"])
def test_a_method_of_classes_says_why_it_refuses_language_models(method):
    with pytest.raises(UserError, match=f"`method` {method} .* use "):
        get_method(method).check_task(SETUPS["lm"]()[2])
