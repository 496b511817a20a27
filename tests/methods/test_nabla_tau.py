"""∇τ term by term, against values computed by hand or by plain PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F
from guards import guard
from toy import image_setup

from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.trainers import calibrating
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer


def make(tmp_path, setup=None, **kwargs):
    model, splits, task = setup or image_setup(torch.float64)
    kwargs = {"num_train_epochs": 4, "proxy_epochs": 1, "learning_rate": 1e-2, "max_grad_norm": 0.0} | kwargs
    kwargs = {"per_device_forget_batch_size": 4} | kwargs
    args = NablaTauConfig(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=8, logging_steps=1, **kwargs,
    )  # fmt: skip
    return NablaTauTrainer(model, args, splits, task, quiet=True)


def by_hand(model, task, rows, which):
    batch = task.collate(rows.__getitems__(list(which)))
    return F.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"], reduction="none")


@pytest.mark.parametrize("forget_batch, forget_batches", [(4, 3), (11, 1)])  # 4 forget epochs, and 12
def test_the_published_schedule_equals_a_plain_loop(tmp_path, forget_batch, forget_batches):
    own = {"learning_rate": None, "max_grad_norm": None, "num_train_epochs": None}  # what is not given is the paper's
    trainer = make(tmp_path, variant="paper", per_device_forget_batch_size=forget_batch, **own)
    reference, splits, task = image_setup(torch.float64)
    sampler = trainer._sampler()
    trainer.train()

    retain_batches = 4  # 30 rows in eights
    epochs = max(1, int(6 * retain_batches / (2 * forget_batches)))
    assert trainer.schedule.total_steps == epochs * forget_batches
    optimizer = torch.optim.AdamW(reference.parameters(), weight_decay=0.01)
    alpha_0 = 5 / 3 * 11 / 41
    reference.eval()
    taus = []
    for step in range(epochs * forget_batches):
        epoch = step // forget_batches
        if step % forget_batches == 0 and epoch % 5 == 0:
            with torch.no_grad():
                tau = by_hand(reference, task, splits.validation, range(12 + 7)).mean().item()
            taus.append(tau)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 + (1e-4 - 1e-3) * epoch / epochs
        rows = sampler.rows(step)
        forget = by_hand(reference, task, splits.forget, rows["forget"])
        retain = by_hand(reference, task, splits.retain, rows["retain"])
        alpha = alpha_0 * (1 - epoch / epochs)
        loss = alpha * torch.relu(tau - forget.mean()) ** 2 + (1 - alpha) * retain.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert trainer.state.log_history[step]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert len(taus) == math.ceil(epochs / 5) and trainer.tau == pytest.approx(taus[-1], abs=1e-9)
    for ours, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("steps", [5, 30])
def test_with_max_steps_the_published_weight_falls_over_these(tmp_path, steps):
    trainer = make(tmp_path, variant="paper", max_steps=steps)  # three steps a pass
    losses, beside = [], trainer.rows_beside_steps()
    trainer.of_step_mean = lambda function, forget: torch.ones(())  # L = α + (1 − α)·L_r
    own = trainer.unlearning_loss

    def kept(forget, retain):
        losses.append((own(forget, retain), retain.mean(retain.loss)))
        return losses[-1][0]

    trainer.unlearning_loss = kept
    trainer.train()
    weights = [((loss - rest) / (1 - rest)).item() for loss, rest in losses]
    falling = [5 / 3 * 11 / 41 * (1 - step // 3 * 3 / steps) for step in range(steps)]
    assert weights == pytest.approx(falling, abs=1e-4) and min(falling) > 0
    assert int(trainer.method_state["side_examples"]) == beside


def test_the_ascent_stops_when_the_mean_reaches_tau(tmp_path):
    trainer = make(tmp_path, variant="held")
    trainer.method_state = {"tau": torch.tensor(0.5)}
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.eval()
    outputs = trainer._run(trainer.model, batch)
    assert outputs["forget"].loss.mean() > 0.5  # an untrained model is already above
    loss = trainer.unlearning_loss(**outputs)
    assert loss.item() == pytest.approx(outputs["retain"].loss.mean().item())


def test_the_row_loss_by_hand(tmp_path):
    trainer = make(tmp_path)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.eval()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    outputs = trainer._run(trainer.model, batch)
    forget, retain = outputs["forget"], outputs["retain"]
    shift = torch.tensor([1.0, -6.4, -0.3, 5.0], dtype=torch.float64)
    targets = torch.zeros(11, dtype=torch.float64)
    targets[forget.index] = forget.log_odds.detach() - shift  # rows lie above and below their targets
    trainer.method_state = {"targets": targets, "spread": torch.tensor(2.0)}
    trainer.state.global_step = 1  # no measurement is due
    pull = (0.5**2 / 2 + (3.0 - 0.5) + 0 + (2.5 - 0.5)) / 4  # Huber of shift / 2, 0.2 below left alone
    kept = retain.loss.mean().item()
    assert trainer.unlearning_loss(forget, retain).item() == pytest.approx(0.6 * pull + kept)

    trainer.method_state["removed"] = torch.full((11,), 3)  # a class that goes: no row is left alone below its target
    pull = (0.5**2 / 2 + (3.2 - 0.5) + 0.15**2 / 2 + (2.5 - 0.5)) / 4
    assert trainer.unlearning_loss(forget, retain).item() == pytest.approx(0.6 * pull + kept)


@pytest.mark.parametrize("forget, steps", [(2, 40), (7, 40), (30, 40), (120, 45)])
def test_steps_follow_the_request_where_the_user_names_no_epochs(tmp_path, forget, steps):
    roles = {"forget": forget, "retain": 30, "validation_tau": 12, "validation_stop": 4, "test": 4}
    model, splits, task = image_setup(roles=roles)
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=16)
    trainer = NablaTauTrainer(model, args, splits, task, quiet=True)
    assert trainer.default_forget_batch() == 8 and trainer.schedule.total_steps == steps
    assert make(tmp_path, num_train_epochs=2).schedule.total_steps == 8


def test_momentum_is_off_only_where_rows_have_targets(tmp_path):
    for variant, beta, warmup in (("rows", 0.0, 0.1), ("held", 0.9, 0.0), ("paper", 0.9, 0.0)):
        args = NablaTauConfig(output_dir=str(tmp_path), variant=variant)
        assert (args.adam_beta1, args.warmup_steps) == (beta, warmup)
    args = NablaTauConfig(output_dir=str(tmp_path), adam_beta1=0.5, warmup_steps=3)
    assert (args.adam_beta1, args.warmup_steps) == (0.5, 3)


@pytest.mark.parametrize("variant", ["rows", "held", "paper"])
def test_training_reads_neither_test_nor_stopping_rows(tmp_path, variant):
    model, splits, task = image_setup()
    splits = guard(splits, ("test", "validation_stop"))
    make(tmp_path, (model, splits, task), variant=variant).train()


def test_what_retraining_takes_sets_the_budget(tmp_path):
    trainer = make(tmp_path, num_train_epochs=None, proxy_epochs=None, retrain_epochs=30)
    assert (trainer.args.proxy_epochs, trainer.args.num_train_epochs) == (3.0, 2.0)
    trainer = make(tmp_path, num_train_epochs=None, proxy_epochs=None, retrain_epochs=300)
    assert (trainer.args.proxy_epochs, trainer.args.num_train_epochs) == (6.0, 4.0)


@pytest.mark.parametrize("saliency", [None, 0.5])
@pytest.mark.parametrize("variant", ["rows", "held", "paper"])
def test_a_plan_counts_what_is_read(tmp_path, variant, saliency):
    trainer = make(tmp_path, variant=variant, proxy_epochs=2, saliency=saliency)
    planned = trainer.rows_of_steps(), trainer.rows_beside_steps()
    trainer.train()
    beside = int(trainer.method_state["side_examples"])
    assert planned == (trainer.examples - beside, beside) and trainer.examples > 0


@pytest.mark.parametrize("variant", ["held", "paper"])
def test_tau_is_measured_on_no_more_rows_than_targets_are(tmp_path, monkeypatch, variant):
    monkeypatch.setattr(calibrating, "MOST_CALIBRATION", 5)
    trainer = make(tmp_path, variant=variant, num_train_epochs=None)
    trainer.train()
    times = -(-trainer.forget_epochs // 5) if variant == "paper" else 1
    checked = 11 + 30 + 5
    assert int(trainer.method_state["side_examples"]) == checked + times * 5 == trainer.rows_beside_steps()


def test_examples_count_everything_that_was_read(tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    steps = trainer.schedule.total_steps
    forget = sum(len(trainer._sampler().rows(step)["forget"]) for step in range(steps))
    proxy = 4 * 8 + (11 + 19)  # four steps of eight rows; one look at forget and validation rows
    measured = 6 * 19  # the first time serves the check too, the last one says whether the model is damaged
    checked = 11 + 30  # forget and retain rows, to see whether validation rows are unseen
    held = 30  # where each retain row stood: a model that has learned nothing knows none by heart
    assert trainer.examples == steps * 8 + forget + proxy + measured + checked + held


def test_a_loss_that_is_not_finite_stops_before_the_update_and_keeps_the_last_good_state(tmp_path):
    trainer = make(tmp_path, image_setup(), variant="held")
    real, calls = trainer.unlearning_loss, []

    def broken(forget, retain):
        calls.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        return real(forget, retain) * (float("nan") if len(calls) == 4 else 1.0)

    trainer.unlearning_loss = broken
    with pytest.raises(NonFiniteLossError, match="step 4"):
        trainer.train()
    now = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert torch.equal(now, calls[-1]) and torch.isfinite(now).all()
    assert (tmp_path / "checkpoint-3" / "model.safetensors").is_file()


def test_bad_arguments_are_refused(tmp_path):
    for bad in ({"variant": "best"}, {"alpha": 2.0}, {"proxy_epochs": 0}, {"learning_rate": -1.0}):
        with pytest.raises(UserError):
            NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, **bad)
    with pytest.raises(UserError, match="validation"):
        NablaTauConfig(
            output_dir=str(tmp_path), use_cpu=True, load_best_model_at_end=True, eval_strategy="steps", save_steps=5,
            eval_steps=5, save_strategy="steps", metric_for_best_model="eval_test_accuracy",
        )  # fmt: skip


def test_a_proxy_is_trained_with_momentum(tmp_path, monkeypatch):
    made = []
    train = RetainOnlyTrainer.train
    monkeypatch.setattr(RetainOnlyTrainer, "train", lambda self, *a, **k: (made.append(self.args), train(self))[1])
    make(tmp_path).train()
    assert [(args.adam_beta1, args.warmup_steps, args.disable_dropout) for args in made] == [(0.9, 0.0, False)]
