import numpy as np
import pytest
import torch
from toy import SETUPS, image_setup

from hf_unlearn.errors import UserError
from hf_unlearn.methods.fine_tune import FineTuneConfig, FineTuneTrainer
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.methods.salun import SalUnConfig, SalUnTrainer
from hf_unlearn.models import lora
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer
from hf_unlearn.trainers.saliency_lens import MASK_NAME

METHODS = {
    "salun": (SalUnTrainer, SalUnConfig),
    "nabla_tau": (NablaTauTrainer, NablaTauConfig),
    "fine_tune": (FineTuneTrainer, FineTuneConfig),
}


def trainer(tmp_path, setup, method="salun", **kwargs):
    model, splits, task = setup
    trainer_class, config_class = METHODS[method]
    defaults = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "per_device_forget_batch_size": 4}
    defaults["learning_rate"] = 1e-2
    if method != "fine_tune":
        defaults["proxy_epochs"] = 1
    args = config_class(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, logging_steps=1,
        **(defaults | kwargs),
    )  # fmt: skip
    return trainer_class(model, args, splits, task, quiet=True)


def adapted(setup):
    model, splits, task = setup
    torch.manual_seed(0)
    return lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type), splits, task


def batch_of(t, keys):
    return t.data_collator(t.train_dataset.__getitems__(keys))


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.state_dict().items()}


def same_bits(a, b):
    return (a == b) & (torch.signbit(a) == torch.signbit(b))


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", SETUPS)
@pytest.mark.parametrize("method", METHODS)
def test_any_method_moves_the_salient_weights_and_no_other(tmp_path, method, kind, peft):
    setup = adapted(SETUPS[kind]()) if peft else SETUPS[kind]()
    before = snapshot(setup[0])
    t = trainer(
        tmp_path, setup, method, saliency=0.3, weight_decay=0.1, gradient_accumulation_steps=2, max_grad_norm=0.5
    )
    t.train()
    masks, moved = t.lens.mask.masks, 0
    assert t.lens.mask.kept > 0 and masks.nbytes <= t.lens.mask.size / 8 + len(masks)
    for name, now in t.model.state_dict().items():
        still = same_bits(before[name], now)
        if name in masks:
            assert still[~masks[name]].all(), name
            moved += int((~still)[masks[name]].sum())
        else:
            assert still.all(), name
    assert moved > 0.5 * t.lens.mask.kept


def test_a_fresh_adapter_moves_whole_rows_of_b_and_says_so(tmp_path):
    t = trainer(tmp_path, adapted(image_setup()), saliency=0.5)
    t.train()
    masks = t.lens.mask.masks
    rows = {name: mask for name, mask in masks.items() if "lora_B" in name}
    assert rows and all((mask.all(1) | ~mask.any(1)).all() for mask in rows.values())
    assert any(mask.any() for mask in rows.values())
    assert not any(mask.any() for name, mask in masks.items() if "lora_A" in name)
    assert any("B" in note for note in t.notes)


def test_the_mask_is_written_and_used_again(tmp_path):
    first = trainer(tmp_path / "a", image_setup(), saliency=0.2)
    first.train()
    path = tmp_path / MASK_NAME
    first.lens.save(str(tmp_path))
    assert path.is_file()
    second = trainer(tmp_path / "b", image_setup(), saliency_mask=str(path), saliency=None)
    second.train()
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
    other = trainer(tmp_path / "c", image_setup(), saliency_mask=str(path), saliency=None)
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    with pytest.raises(UserError, match="other weights"):
        other.train()
    rows = trainer(tmp_path / "d", image_setup(), saliency_mask=str(path), saliency=None)
    rows.forget_digest = "of other rows"
    first.lens.mask.forget_digest = "of these rows"
    first.lens.mask.save(str(path))
    with pytest.raises(UserError, match="other forget rows"):
        rows.train()


@pytest.mark.parametrize("options", [{}, {"mixing": "sequential"}, {"variant": "paper"}, {"soft_threshold": 0.5}])
@pytest.mark.parametrize("stop", [1, 5])
def test_stopping_and_resuming_is_bit_identical(tmp_path, stop, options):
    run = {"setup": image_setup(dropout=0.1), "disable_dropout": False} | options
    whole = trainer(tmp_path / "whole", **run)
    whole.train()
    run["setup"] = image_setup(dropout=0.1)
    trainer(tmp_path / "cut", **run, save_steps=stop, save_strategy="steps").train()
    run["setup"] = image_setup(dropout=0.1)
    second = trainer(tmp_path / "again", **run)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{stop}"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("options", [{}, {"variant": "paper"}, {"mixing": "sequential", "variant": "paper"}])
@pytest.mark.parametrize("kind", SETUPS)
def test_accumulation_gives_the_same_weights(tmp_path, kind, options):
    found = []
    for parts in (1, 2):
        t = trainer(
            tmp_path / str(parts), SETUPS[kind](torch.float64), gradient_accumulation_steps=parts,
            per_device_train_batch_size=8 // parts, per_device_forget_batch_size=4 // parts, saliency=0.4, **options,
        )  # fmt: skip
        t.train()
        found.append(torch.cat([p.detach().flatten() for p in t.model.parameters()]))
    assert (found[0] - found[1]).abs().max() < 1e-9


@pytest.mark.parametrize("labels", ["soft", "uniform"])
def test_the_rows_loss_by_hand(tmp_path, labels):
    t = trainer(tmp_path, image_setup(), saliency=1, labels=labels)
    t.current_gradient_accumulation_steps = 1
    t.method_state = {"targets": torch.full((11,), -1.0), "spread": torch.tensor(2.0)}
    t.row_targets = lambda forget: t.method_state["targets"][forget.index]
    outputs = t._run(t.model, batch_of(t, [("forget", 3), ("forget", 5), ("retain", 0)]))
    forget, retain = outputs["forget"], outputs["retain"]
    logp, by_hand = forget.logits.log_softmax(1), 0.0
    for i, y in enumerate(forget.labels.tolist()):
        others = [k for k in range(4) if k != y]
        p = logp[i].exp()
        if labels == "soft":
            share = p[others] / p[others].sum()
            loss = -(share * logp[i, others]).sum() * min(1 / p[y], 10)
        else:
            drawn = np.random.default_rng([t.args.seed, 3, 0, [3, 5][i]]).random()
            loss = -logp[i, others[int(drawn * 3)]]
        above = float((torch.log(p[y] / (1 - p[y])).detach() + 1) / 2)
        back = -logp[i, y] * min(1.0, max(0.0, -above - 0.2))  # a row well below its target returns
        by_hand += (max(0.0, above) * loss + back) / 4  # a step's forget rows are 4
    by_hand = by_hand + retain.loss.sum() / 8
    assert t.unlearning_loss(**outputs).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_in_the_published_mixture_every_example_weighs_the_same(tmp_path):
    t = trainer(tmp_path, image_setup(), saliency=1, variant="paper", per_device_forget_batch_size=None)
    t.current_gradient_accumulation_steps = 1
    assert t.args.labels == "uniform" and t.args.per_device_forget_batch_size == 3  # 8 × 11 / 30
    keys = [("forget", i) for i in range(3)] + [("retain", i) for i in range(8)]
    outputs = t._run(t.model, batch_of(t, keys))
    every = torch.cat([t.wrong_label_losses(outputs["forget"]), outputs["retain"].loss])
    assert t.unlearning_loss(**outputs).item() == pytest.approx(every.mean().item(), rel=1e-5)


@pytest.mark.parametrize("mixing", ["shuffled", "sequential"])
def test_the_published_loop_step_by_step(tmp_path, mixing):
    """SGD at 0.013 with momentum 0.9 and weight decay 5e-4 of every tensor, no clipping, a constant rate, means over
    the rows of a batch; after a step masked weights are θ₀ again and their momentum is 0."""
    reference, splits, task = image_setup(torch.float64)
    t = trainer(tmp_path, image_setup(torch.float64), variant="paper", mixing=mixing, learning_rate=None)
    t.train()
    start = snapshot(reference)
    momentum = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    sampler, passes = t._sampler(), 0
    for step in range(t.schedule.total_steps):
        losses, rows = [], sampler.rows(step)
        for stream, which in rows.items():
            batch = task.collate(getattr(splits, stream).__getitems__(which.tolist()))
            labels = batch["labels"].clone()
            if stream == "forget":
                for i, row in enumerate(which.tolist()):
                    drawn = int(np.random.default_rng([t.args.seed, 3, passes // 3, row]).random() * 3)
                    labels[i] = [k for k in range(4) if k != labels[i]][drawn]
                passes += 1
            logits = reference(pixel_values=batch["pixel_values"]).logits
            losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
        reference.zero_grad()
        torch.cat(losses).mean().backward()
        with torch.no_grad():
            for name, p in reference.named_parameters():
                moving = t.lens.mask.masks[name]
                momentum[name] = (0.9 * momentum[name] + p.grad + 5e-4 * p) * moving
                p.copy_(torch.where(moving, p - 0.013 * momentum[name], start[name]))
    assert t.schedule.total_steps == (2 * 4 if mixing == "shuffled" else 2 * (3 + 4))
    assert len(sampler.rows(t.schedule.total_steps - 1)["retain"]) == 6  # the pass ends: 30 rows in eights
    for name, p in t.model.named_parameters():
        assert torch.allclose(p, reference.get_parameter(name), rtol=0, atol=1e-10), name


def test_sequential_reads_forget_and_retain_rows_in_turn(tmp_path):
    t = trainer(tmp_path, image_setup(), mixing="sequential", variant="paper")
    streams = [set(t._sampler().rows(step)) for step in range(t.schedule.total_steps)]
    assert streams == ([{"forget"}] * 3 + [{"retain"}] * 4) * 2
    t.train()
    assert any("forget pass_forget_loss" in log for log in t.state.log_history)


def test_in_turn_targets_are_measured_as_soon_as_forget_rows_are_read(tmp_path):
    t = trainer(tmp_path, image_setup(), mixing="sequential", num_train_epochs=6, saliency=1)
    planned, measured, kept = t.rows_beside_steps(), [], t._measure_targets
    t._measure_targets = lambda: measured.append(t.state.global_step) or kept()
    t.train()
    assert t.schedule.total_steps == 6 * (3 + 4)
    assert measured == [0, 14, 21, 35, 36]  # from 0, 10.5, 21, 31.5 and 36.75 on, in passes of three and four steps
    assert int(t.method_state["side_examples"]) == planned


@pytest.mark.parametrize("kind", ["image", "lm"])
def test_wrong_labels_do_not_hang_on_the_batch(tmp_path, kind):
    t = trainer(tmp_path, SETUPS[kind](torch.float64), labels="uniform")
    t.current_gradient_accumulation_steps = 1
    whole = t._run(t.model, batch_of(t, [("forget", i) for i in range(4)]))["forget"]
    one = t._run(t.model, batch_of(t, [("forget", 2)]))["forget"]
    mean = whole.predictions.example_mean(t.wrong_label_losses(whole))[2]
    assert mean.item() == pytest.approx(one.predictions.example_mean(t.wrong_label_losses(one)).item(), rel=1e-9)


def test_the_task_says_what_a_wrong_label_is(tmp_path):
    assert [trainer(tmp_path, SETUPS[kind]()).args.labels for kind in ("image", "text", "lm")] == [
        "soft", "soft", "uniform"
    ]  # fmt: skip
    assert trainer(tmp_path, image_setup(), variant="paper").args.labels == "uniform"


def test_tokens_have_targets_of_their_own(tmp_path):
    t = trainer(tmp_path, SETUPS["lm"](), saliency=1)
    t.train()
    state = t.method_state
    counts = [int((f["labels"] != -100).sum()) for f in t.splits.forget.__getitems__(range(11))]
    assert state["token_start"].diff().tolist() == counts and len(state["token_targets"]) == sum(counts)
    t.state.global_step = 1  # no step that measures
    output = t._run(t.model, batch_of(t, [("forget", 4), ("forget", 1)]))["forget"]
    start = state["token_start"]
    wanted = torch.cat([state["token_targets"][start[row] : start[row + 1]] for row in (4, 1)])
    assert torch.allclose(t.label_targets(output).double(), wanted.double())


def test_a_soft_threshold_leaves_part_of_the_weights_where_they_were(tmp_path):
    setup = image_setup()
    before = snapshot(setup[0])
    t = trainer(tmp_path, setup, soft_threshold=0.9)
    assert t.lens is None
    t.train()
    now = t.model.state_dict()
    still = sum(int(same_bits(before[name], now[name]).sum()) for name in now)
    total = sum(value.numel() for value in now.values())
    last = t.soft_threshold().ratio_at(t.schedule.total_steps - 1)
    assert int(last * total) <= still < 0.9 * total


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"saliency": 0}, "`saliency`"),
        ({"saliency": 1.5}, "`saliency`"),
        ({"saliency_mask": "/nowhere"}, "`saliency_mask`"),
        ({"soft_threshold": 2.0}, "`soft_threshold`"),
        ({"soft_threshold": 0.5, "saliency": 0.5}, "place of the mask"),
        ({"labels": "likely"}, "`labels`"),
        ({"mixing": "both"}, "`mixing`"),
        ({"variant": "held"}, "`variant`"),
        ({"allow_true_label": True, "labels": "soft"}, "`labels` uniform"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, wrong, match):
    with pytest.raises(UserError, match=match):
        SalUnConfig(output_dir=str(tmp_path), use_cpu=True, **wrong)


def test_a_share_of_one_masks_nothing(tmp_path):
    assert trainer(tmp_path, image_setup(), saliency=1.0).lens is None
    assert trainer(tmp_path, image_setup()).args.saliency == 0.5


def test_patterns_hold_the_other_tensors_still(tmp_path):
    setup = image_setup()
    before = snapshot(setup[0])
    t = trainer(tmp_path, setup, "nabla_tau", saliency_include=["*classifier*"])
    t.train()
    for name, now in t.model.state_dict().items():
        assert torch.equal(before[name], now) != name.startswith("classifier"), name
    with pytest.raises(UserError, match="classifier"):
        trainer(tmp_path, image_setup(), "nabla_tau", saliency_include=["clasifier.*"]).train()


def test_an_optimizer_that_is_not_elementwise_is_refused(tmp_path):
    with pytest.raises(UserError, match="(?i)adafactor"):
        trainer(tmp_path, image_setup(), saliency=0.5, optim="adafactor").train()


@pytest.mark.parametrize("options", [{"saliency": 0.5}, {"saliency": 1.0, "saliency_include": ["*classifier*"]}])
def test_no_mask_made_from_forget_rows_reaches_the_proxy(tmp_path, monkeypatch, options):
    made = []
    train = RetainOnlyTrainer.train

    def watched(self, *args, **kwargs):
        made.append(self)
        return train(self, *args, **kwargs)

    monkeypatch.setattr(RetainOnlyTrainer, "train", watched)
    t = trainer(tmp_path, image_setup(), **options)
    assert t.lens is not None
    t.train()
    assert [proxy.lens for proxy in made] == [None]
