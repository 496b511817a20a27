"""The methods for denoisers: formulas, masks, adapters, resuming, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from toy import image_setup, outputs
from toy_diffusion import denoising_setup
from transformers import TrainerCallback

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.models import lora
from hf_unlearn_diffusion.concept_ablation import ConceptAblationConfig, ConceptAblationTrainer
from hf_unlearn_diffusion.draws import DRAWS, fixed_draws
from hf_unlearn_diffusion.esd import ESDConfig, ESDTrainer
from hf_unlearn_diffusion.lead import strides
from hf_unlearn_diffusion.nabla_tau import DiffusionNablaTauConfig, DiffusionNablaTauTrainer, hinges
from hf_unlearn_diffusion.predictions import Noised
from hf_unlearn_diffusion.salun import ALPHA, DiffusionSalUnConfig, DiffusionSalUnTrainer

QUICK = {"learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8}
OWN = {
    "concept_ablation": ConceptAblationTrainer,
    "diffusion_nabla_tau": DiffusionNablaTauTrainer,
    "diffusion_salun": DiffusionSalUnTrainer,
    "esd": ESDTrainer,
}
METHODS = {**OWN, "fine_tune": get_method("fine_tune"), "nabla_tau": get_method("nabla_tau")}


def make(folder, method="diffusion_salun", adapter=False, gone=None, model_values=None, **more):
    model, splits, task = denoising_setup(torch.float64, **model_values or {})
    of_classes = getattr(METHODS[method], "of_classes", False)
    splits.forgotten_classes = ((1,) if of_classes else ()) if gone is None else gone
    if adapter:
        model = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    kind = METHODS[method]
    args = kind.config_class(output_dir=str(folder), **QUICK | {"max_steps": 2} | more)
    return kind(model, args, splits, task, quiet=True)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_forget_term_of_salun_is_that_of_the_paper(tmp_path):
    trainer = make(
        tmp_path,
        gone=(1,),
        retain_target="noise",
        per_device_forget_batch_size=8,
        model_values={"condition_dropout": 0.5},
    )
    torch.manual_seed(0)
    said = outputs(trainer)
    shown, model = said["forget"].predictions.noised, trainer.model
    following = [2 if c == 1 else 4 if c == 4 else {0: 2, 2: 3, 3: 0}[c] for c in shown.conditions.tolist()]
    assert 4 in following and set(following) & {0, 2, 3}
    with torch.no_grad():
        other = model.denoise(Noised(shown.images, shown.timesteps, torch.tensor(following)))
        own = model.denoise(shown)
    by_hand = (own - other).square().flatten(1).mean(1)
    assert torch.allclose(trainer.forget_losses(said["forget"]), by_hand, rtol=1e-9)
    dropped = shown.conditions == 4
    assert (by_hand[dropped] == 0).all() and (by_hand[~dropped] > 0).all()
    loss = trainer.unlearning_loss(**said)
    assert loss.item() == pytest.approx((by_hand.mean() + ALPHA * said["retain"].loss.mean()).item())
    loss.backward()  # only through ε_θ(x, t, c): the embedding of a class that is nobody's own here gets nothing
    alone = make(tmp_path, gone=(1,), per_device_forget_batch_size=8, alpha=1e-9)
    (alone.forget_losses(outputs(alone)["forget"])).sum().backward()
    assert not torch.equal(alone.model.unet.class_embedding.weight.grad[1], torch.zeros(32, dtype=torch.float64))


def test_kept_rows_are_held_to_what_the_original_says(tmp_path):
    trainer = make(tmp_path, gone=(1,), alpha=0.25)
    original = copy.deepcopy(trainer.model)
    trainer.method_state = trainer._measure_originals()
    torch.manual_seed(0)
    assert trainer.held_losses(outputs(trainer)["retain"]).max() < 1e-20  # nothing moved yet
    with torch.no_grad():
        for weight in trainer.model.unet.parameters():
            weight.mul_(1.1)
    torch.manual_seed(0)
    said = outputs(trainer)
    shown = said["retain"].predictions.noised
    with torch.no_grad():
        by_hand = (trainer.model.denoise(shown) - original.denoise(shown)).square().flatten(1).mean(1)
    assert torch.allclose(trainer.held_losses(said["retain"]), by_hand, rtol=1e-9) and (by_hand > 0).all()
    wanted = trainer.forget_losses(said["forget"]).mean() + 0.25 * by_hand.mean()
    assert trainer.unlearning_loss(**said).item() == pytest.approx(wanted.item())


def test_tau_is_that_of_unseen_images_by_eighths_of_the_schedule(tmp_path):
    found = {}
    for unseen in ("own", "other"):
        trainer = make(tmp_path, "diffusion_nabla_tau", unseen=unseen)
        trainer.method_state = dict(trainer.prepare())
        found[unseen] = trainer.method_state["tau"]
        model, rows = trainer.model, trainer.splits.measuring
        times, noises = fixed_draws([rows[i]["seed"] for i in range(len(rows))], (1, 8, 8), 1000)
        images = torch.stack([rows[i]["pixel_values"] for i in range(len(rows))]).double()
        labels = torch.tensor([rows[i]["labels"] for i in range(len(rows))])
        shown = labels if unseen == "own" else (labels + 1) % 4
        for k in (0, DRAWS - 1):
            noised = model.scheduler.add_noise(images, noises[k].double(), times[k])
            with torch.no_grad():
                error = (model.denoise(Noised(noised, times[k], shown)) - noises[k]).square().mean()
            assert float(found[unseen][k]) == pytest.approx(float(error), rel=1e-5)
    assert make(tmp_path, "diffusion_nabla_tau", gone=(1,)).other_class
    assert not make(tmp_path, "diffusion_nabla_tau").other_class


def test_every_eighth_of_the_schedule_has_a_hinge_of_its_own(tmp_path):
    trainer = make(tmp_path, "diffusion_nabla_tau")
    tau = torch.linspace(2, 0.2, DRAWS, dtype=torch.float64)
    trainer.method_state = {"tau": tau}
    said = outputs(trainer)
    losses, eighths = said["forget"].loss, said["forget"].predictions.noised.timesteps * DRAWS // 1000
    wanted, there = said["retain"].loss.mean(), set(eighths.tolist())
    for k in there:
        rows = eighths == k
        wanted = wanted + rows.double().mean() * torch.relu(1 - losses[rows].mean() / tau[k]) ** 2
    assert 2 < len(there) < DRAWS  # and one that no row is in is left out
    loss = trainer.unlearning_loss(**said)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    ours = torch.autograd.grad(loss, trainer.model.unet.conv_out.weight, retain_graph=True)[0]
    assert torch.allclose(ours, torch.autograd.grad(wanted, trainer.model.unet.conv_out.weight)[0], rtol=1e-9)
    # Late eighths far above τ do not make up for early ones below it.
    means = torch.tensor([0.5 * 0.5, 0.5 * 9.0, 0.5, 0.5])
    assert hinges(means).item() == pytest.approx(0.5 * 0.5**2)


def test_a_stride_ends_where_the_error_is_tau():
    rng = np.random.default_rng(0)
    error, way = rng.normal(size=(2, 4, 1000)) * [[[1.0]], [[0.5]]]
    moments = np.stack([(error**2).mean(1), (error * way).mean(1), (way**2).mean(1)], 1)
    wanted = np.array([1.0, 1.3, 1.7, 2.0])
    tau = ((error + wanted[:, None] * way) ** 2).mean(1)
    assert np.allclose(strides(moments, tau), wanted)
    assert (strides(moments, tau * 9) == 2).all() and (
        strides(moments, tau / 9) == 1
    ).all()  # never short of the others


def test_a_class_is_led_along_the_line_to_kept_classes(tmp_path, monkeypatch):
    trainer = make(
        tmp_path,
        "diffusion_nabla_tau",
        gone=(1,),
        per_device_forget_batch_size=8,
        model_values={"condition_dropout": 0.5},
    )
    original = copy.deepcopy(trainer.model)
    trainer.method_state = trainer._measure_originals() | dict(trainer.prepare())
    stride = trainer.method_state["stride"]
    assert stride.shape == (DRAWS,) and trainer.others.tolist() == [0, 2, 3]
    with torch.no_grad():
        for weight in trainer.model.unet.parameters():
            weight.mul_(1.1)
    torch.manual_seed(0)
    said = outputs(trainer)
    shown = said["forget"].predictions.noised
    monkeypatch.setattr(torch, "randint", lambda most, size: torch.arange(size[0]) % most)
    classes, part = torch.tensor([0, 2, 3, 0, 2, 3, 0, 2]), shown.timesteps * DRAWS // 1000
    trainer.method_state["stride"] = stride = torch.linspace(1, 2, DRAWS, dtype=torch.float64)
    with torch.no_grad():
        now, own = trainer.model.denoise(shown), original.denoise(shown)
        other = original.denoise(Noised(shown.images, shown.timesteps, classes))
        kept = said["retain"].predictions.noised
        held = (trainer.model.denoise(kept) - original.denoise(kept)).square().mean()
    by_hand = (now - own - stride[part].view(-1, 1, 1, 1) * (other - own)).square().flatten(1).mean(1)
    dropped = shown.conditions == 4
    by_hand[dropped] = 0
    assert 0 < dropped.sum() < len(dropped) and len(set(part.tolist())) > 2
    assert trainer.unlearning_loss(**said).item() == pytest.approx((by_hand.mean() + ALPHA * held).item())


def test_the_moments_are_those_of_the_mean_over_kept_classes(tmp_path):
    trainer = make(tmp_path, "diffusion_nabla_tau", gone=(1,))
    model, rows = trainer.model, trainer.splits.forget
    batch = trainer.task.collate([rows[i] for i in range(3)])
    with torch.no_grad():
        said = trainer.task.predict(model, batch)
        found, shown = trainer.moments(said), said.noised
        answers = [model.denoise(Noised(shown.images, shown.timesteps, torch.full((24,), c))) for c in (0, 2, 3)]
    point = said.logits + 1.5 * (torch.stack(answers).mean(0).flatten(1) - said.logits)
    errors = (point - said.wanted).square().mean(1).view(3, DRAWS)
    assert torch.allclose(found @ torch.tensor([1, 3.0, 2.25], dtype=torch.float64), errors, rtol=1e-9)


def test_an_ascent_that_nothing_leads_is_noted_where_a_class_is_forgotten(tmp_path):
    led = make(tmp_path, "diffusion_nabla_tau", gone=(1,), max_steps=-1)
    assert led.is_led and not led.notes and led.args.per_device_forget_batch_size == 2
    assert led.passes(led.schedule.total_steps) == pytest.approx(6, rel=0.1)
    led.train()
    assert int(led.method_state["side_examples"]) == led.rows_beside_steps()
    alone = make(tmp_path, "diffusion_nabla_tau", gone=(1,), lead="none")
    assert not alone.is_led and alone.args.per_device_forget_batch_size == 8 and alone.args.weight_average == 0
    assert "--lead others is for whole classes" in alone.notes[0]
    core = make(tmp_path, "nabla_tau", gone=(1,))
    assert "diffusion_nabla_tau is for whole classes" in core.notes[0] and not make(tmp_path, "nabla_tau").notes
    rows = make(tmp_path, "diffusion_nabla_tau")
    assert not rows.is_led and not rows.notes
    with pytest.raises(UserError, match="`lead` others is for whole classes"):
        make(tmp_path, "diffusion_nabla_tau", lead="others")


def test_the_target_of_esd_is_that_of_the_paper(tmp_path):
    trainer = make(tmp_path, "esd", eta=1.5, alpha=0.25, model_values={"condition_dropout": 0.5})
    original = copy.deepcopy(trainer.model)
    trainer.method_state = trainer._measure_originals()
    with torch.no_grad():
        for weight in trainer.model.unet.parameters():
            weight.mul_(1.1)
    torch.manual_seed(0)
    said = outputs(trainer)
    shown = said["forget"].predictions.noised
    dropped = shown.conditions == 4
    assert 0 < dropped.sum() < len(dropped)
    with torch.no_grad():
        none = Noised(shown.images, shown.timesteps, torch.full_like(shown.conditions, 4))
        own, without, guided = trainer.model.denoise(shown), original.denoise(none), original.denoise(shown)
    by_hand = (own - without + 1.5 * (guided - without)).square().flatten(1).mean(1)
    by_hand[dropped] = 0
    assert torch.allclose(trainer.forget_losses(said["forget"]), by_hand, rtol=1e-9)
    wanted = by_hand.mean() + 0.25 * said["retain"].loss.mean()
    assert trainer.unlearning_loss(**said).item() == pytest.approx(wanted.item())
    assert make(tmp_path, "esd", alpha=0).schedule.phases[0].streams == ("forget",)


def test_concept_ablation_pulls_the_forgotten_condition_to_the_kept_ones(tmp_path):
    trainer = make(tmp_path, "concept_ablation", gone=(1, 3), alpha=0.5, model_values={"condition_dropout": 0.3})
    torch.manual_seed(0)
    said = outputs(trainer, ("retain",))["retain"]
    shown, model = said.predictions.noised, trainer.model
    dropped = shown.conditions == 4
    assert 0 < dropped.sum() < len(dropped)
    gone = torch.tensor([(1, 3)[i % 2] for i in said.index.tolist()])
    own = model.denoise(shown)
    under = model.denoise(Noised(shown.images, shown.timesteps, gone))
    by_hand = torch.where(dropped, 0.0, (under - own.detach()).square().flatten(1).mean(1))
    assert torch.allclose(trainer.ablation_losses(said), by_hand, rtol=1e-9) and by_hand.sum() > 0
    wanted = by_hand.mean() + 0.5 * said.loss.mean()
    assert trainer.unlearning_loss(said).item() == pytest.approx(wanted.item())
    trainer.ablation_losses(said).sum().backward()  # what is said under kept conditions is a number
    moved = model.unet.class_embedding.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_holds_the_other_weights_still_to_the_bit(tmp_path, method):
    trainer = make(tmp_path, method, saliency=0.5, max_steps=3)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    planned = trainer.rows_of_steps() + trainer.rows_beside_steps()
    trainer.train()
    assert trainer.examples == planned
    kept = trainer.lens.mask.masks
    moved = {name: p != start[name] for name, p in trainer.model.named_parameters()}
    assert sum(int(m.sum()) for m in moved.values()) > 100
    assert not any((m & ~kept[name]).any() if name in kept else m.any() for name, m in moved.items())


def test_the_model_has_a_mean_of_the_weights_in_the_end(tmp_path):
    class Watch(TrainerCallback):
        seen: list[torch.Tensor] = []

        def on_step_end(self, args, state, control, model=None, **kwargs):
            self.seen.append(weights(model).clone())

    trainer = make(tmp_path, saliency=1.0, max_steps=20, weight_average=0.6)
    trainer.add_callback(Watch())
    trainer.train()
    mean = Watch.seen[0]
    for n, now in enumerate(Watch.seen[1:], 2):
        decay = min(0.6, n / (9 + n))
        mean = decay * mean + (1 - decay) * now
    assert torch.allclose(weights(trainer.model), mean, rtol=1e-9) and len(Watch.seen) == 20
    assert (mean - Watch.seen[-1]).abs().max() > 1e-4
    without = make(tmp_path, saliency=1.0, max_steps=20, weight_average=0.0)
    without.train()
    assert torch.equal(weights(without.model), Watch.seen[-1])


def test_a_resumed_run_of_whole_weights_is_the_run(tmp_path):
    whole = make(tmp_path / "whole", saliency=0.5, save_strategy="steps", save_steps=1)
    whole.train()
    again = make(tmp_path / "again", saliency=0.5)
    torch.manual_seed(1)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    assert torch.equal(weights(whole.model), weights(again.model)) and again.examples == whole.examples


@pytest.mark.parametrize(("method", "gone"), [*((method, None) for method in OWN), ("diffusion_nabla_tau", (1,))])
def test_a_resumed_run_is_the_run_and_lora_moves_the_adapter_alone(tmp_path, method, gone):
    options = {"adapter": True, "saliency": None if method == "diffusion_nabla_tau" else 1.0, "gone": gone}
    whole = make(tmp_path / "whole", method, save_strategy="steps", save_steps=1, **options)
    start = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    trained = {name for name, p in whole.model.named_parameters() if p.requires_grad}
    whole.train()
    again = make(tmp_path / "again", method, **options)
    torch.manual_seed(1)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    assert torch.equal(weights(whole.model), weights(again.model)) and again.examples == whole.examples
    moved = {name for name, p in whole.model.named_parameters() if not torch.equal(p, start[name])}
    assert moved and moved <= trained < start.keys() and all("lora_" in name for name in trained)
    before = np.array(whole.score(whole.splits.test).loss)
    merged = lora.merge(whole.model)
    assert np.allclose(whole.score(whole.splits.test, merged).loss, before)


def test_steps_as_published(tmp_path):
    trainer = make(tmp_path, variant="paper", max_steps=-1, learning_rate=None, per_device_train_batch_size=None)
    args = trainer.args
    assert (trainer.schedule.total_steps, args.learning_rate, args.max_grad_norm) == (1000, 1e-4, 1.0)
    assert (args.saliency, args.alpha, args.weight_decay, args.lr_scheduler_type) == (0.5, 3.07, 0.0, "constant")
    assert (args.weight_average, args.retain_target) == (0, "noise")
    assert args.per_device_train_batch_size == args.per_device_forget_batch_size == 128
    usual = make(tmp_path, max_steps=-1)
    assert (usual.args.per_device_forget_batch_size, usual.args.retain_target) == (2, "original")
    assert usual.passes(usual.schedule.total_steps) == pytest.approx(6, rel=0.1)
    other = make(tmp_path, "esd", max_steps=-1)
    assert other.args.per_device_forget_batch_size == 8
    assert other.passes(other.schedule.total_steps) == pytest.approx(40 * 11 / 30, rel=0.1)


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (DiffusionSalUnConfig, {"alpha": 0}, "without the retain term all classes are lost"),
        (
            DiffusionSalUnConfig,
            {
                "load_best_model_at_end": True,
                "eval_strategy": "steps",
                "save_strategy": "steps",
                "metric_for_best_model": "eval_validation_loss",
            },
            "`load_best_model_at_end` takes the weights of one checkpoint, and `weight_average` a mean",
        ),
        (DiffusionSalUnConfig, {"retain_target": "mean"}, "`retain_target` is 'mean'; it is one of original, noise"),
        (DiffusionSalUnConfig, {"weight_average": 1}, "`weight_average` is 1; it is 0 or more, and less than 1"),
        (DiffusionSalUnConfig, {"variant": "tokens"}, "it is one of rows, paper"),
        (DiffusionNablaTauConfig, {"unseen": "all"}, "it is one of own, other"),
        (DiffusionNablaTauConfig, {"lead": "one"}, "it is one of others, none"),
        (DiffusionNablaTauConfig, {"weight_average": -1}, "`weight_average` is -1; it is 0 or more, and less than 1"),
        (DiffusionNablaTauConfig, {"variant": "paper"}, "this method has rows alone"),
        (ESDConfig, {"eta": -1}, "`eta` is -1; it is 0 or more"),
        (ConceptAblationConfig, {"alpha": -0.5}, "`alpha` is -0.5; it is 0 or more"),
    ],
)
def test_arguments_without_sense_are_refused(tmp_path, config, values, said):
    with pytest.raises(UserError, match=said):
        config(output_dir=str(tmp_path), **values)


@pytest.mark.parametrize("method", OWN.values())
def test_a_classifier_is_refused(tmp_path, method):
    model, splits, task = image_setup()
    with pytest.raises(UserError, match="is for models that take noise away; the task is image_classification"):
        method(model, method.config_class(output_dir=str(tmp_path), **QUICK), splits, task)


@pytest.mark.parametrize("method", ["concept_ablation", "esd"])
def test_what_forgets_classes_refuses_single_rows(tmp_path, method):
    with pytest.raises(UserError, match=f"`method` {method} forgets whole classes, not some of their rows"):
        make(tmp_path, method, gone=())


def test_esd_needs_a_model_that_was_shown_images_without_their_class(tmp_path):
    with pytest.raises(UserError, match="this one always takes one"):
        make(tmp_path, "esd", model_values={"condition_dropout": 0.0})


def test_rows_of_the_core_s_nabla_tau_need_labels(tmp_path):
    assert make(tmp_path, "nabla_tau").args.variant == "held"
    with pytest.raises(UserError, match="`variant` rows is for models that say labels"):
        make(tmp_path, "nabla_tau", variant="rows")
