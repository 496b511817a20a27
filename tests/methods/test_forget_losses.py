"""Forget and retain terms against values and gradients worked out by hand, on tokens with chosen probabilities."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import lm_setup

from hf_unlearn.errors import UserError
from hf_unlearn.methods import get_method
from hf_unlearn.methods.altpo import packed, unpacked
from hf_unlearn.methods.refusals import RefusalConfig, read_refusals, refused_rows
from hf_unlearn.methods.rmu import RMUConfig
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.trainers.forget_retain import divergence
from hf_unlearn.trainers.originals import Pass, ReferenceRows
from hf_unlearn.trainers.preference import PREFERRED
from hf_unlearn.trainers.split_output import SplitOutput

# Three tokens of two rows, three words; the label is the first word of a row's first token, and so on.
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
P0 = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
Y = np.array([0, 2, 2])
ROW = np.array([0, 0, 1])
T = np.array([2, 2, 1])  # tokens of each token's row
ONE_HOT = np.eye(3)[Y]
LOG, LOG0 = np.log(P[range(3), Y]), np.log(P0[range(3), Y])


def by_row(values):
    return np.array([values[row == ROW].sum() for row in range(2)])


def output(stream="forget"):
    logits = torch.tensor(np.log(P) + 0.3, requires_grad=True)  # a shift that softmax does not see
    labels, example = torch.tensor(Y), torch.tensor(ROW)
    before = Predictions(torch.tensor(np.log(P0) - 1.0), labels, 2, example)
    seen = SplitOutput(stream, Predictions(logits, labels, 2, example), torch.tensor([0, 1]), 0.5)
    seen.original = Pass(before, {})
    return seen, logits


def trainer_of(method, **args):
    """A trainer's losses without a trainer."""
    trainer = get_method(method).__new__(get_method(method))
    trainer.args = SimpleNamespace(**args)
    tokens = torch.tensor([2.0, 1.0], dtype=torch.float64)
    rows = {"forget": ReferenceRows(torch.tensor(-by_row(LOG0)) / tokens, tokens)}
    rows[PREFERRED] = ReferenceRows(torch.tensor([1.0, 2.0], dtype=torch.float64), tokens)
    trainer.reference = lambda name, index: rows[name]
    return trainer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def npo():
    ratio = by_row(LOG - LOG0)
    return -2 / 0.5 * np.log(sigmoid(-0.5 * ratio)), (2 * sigmoid(0.5 * ratio))[ROW, None] * (ONE_HOT - P)


def simnpo():
    loss = -by_row(LOG) / [2, 1]
    slope = -2 * sigmoid(-2.0 * (loss - 0.1))
    return -2 / 2.0 * np.log(sigmoid(2.0 * (loss - 0.1))), slope[ROW, None] * (P - ONE_HOT) / T[:, None]


def weighted(weights):
    return by_row(weights * LOG) / [2, 1], (weights / T)[:, None] * (ONE_HOT - P)


def demoted(target):
    target = target / target.sum(1, keepdims=True)
    return by_row(-(target * np.log(P)).sum(1)) / [2, 1], (P - target) / T[:, None]


HAND = {
    "npo": ({"beta": 0.5}, npo),
    "simnpo": ({"beta": 2.0, "delta": 0.1}, simnpo),
    "grad_diff": ({}, lambda: weighted(np.ones(3))),
    "wga": ({"beta": 2.0}, lambda: weighted(np.exp(LOG) ** 2)),
    "sat_imp": ({"beta1": 3.0, "beta2": 1.0}, lambda: weighted(np.exp(LOG) ** 3 * (1 - np.exp(LOG)))),
    "undial": ({"beta": 1.5}, lambda: demoted(P0 * np.exp(-1.5 * ONE_HOT))),
    "ceu": ({}, lambda: demoted(P * (1 - ONE_HOT))),
    "delete": ({}, lambda: demoted(P0 * (1 - ONE_HOT))),
}


@pytest.mark.parametrize("method", HAND)
def test_values_and_gradients(method):
    args, by_hand = HAND[method]
    seen, logits = output()
    losses = trainer_of(method, **args).forget_losses(seen)
    value, slope = by_hand()
    assert losses.detach().numpy() == pytest.approx(value, abs=1e-9)
    (found,) = torch.autograd.grad(losses.sum(), logits)
    assert found.numpy() == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("method", ["idk_dpo", "altpo"])
def test_dpo_by_hand(method):
    seen, logits = output()
    trainer = trainer_of(method, beta=0.5)
    trainer.preferred_index = lambda index: index
    # One token an answer, of probability 0.3 and 0.6, and reference sums −1·2 and −2·1.
    chosen = torch.tensor(np.log([[0.3, 0.7], [0.6, 0.4]]), requires_grad=True)
    refusal = Predictions(chosen, torch.tensor([0, 0]), 2, torch.tensor([0, 1]))
    trainer.predict_rows = lambda rows, index: refusal
    trainer.__dict__["_alternates" if method == "altpo" else "refused"] = None
    losses = trainer.forget_losses(seen)
    preferred = np.log([0.3, 0.6]) + [2.0, 2.0]
    margin = preferred - by_row(LOG - LOG0)
    assert losses.detach().numpy() == pytest.approx(-2 / 0.5 * np.log(sigmoid(0.5 * margin)), abs=1e-9)
    on_lost, on_refusal = torch.autograd.grad(losses.sum(), [logits, chosen])
    slope = 2 * sigmoid(-0.5 * margin)
    assert on_lost.numpy() == pytest.approx(slope[ROW, None] * (ONE_HOT - P), abs=1e-9)
    wanted = -slope[:, None] * (np.array([[1, 0], [1, 0]]) - np.exp(chosen.detach().numpy()))
    assert on_refusal.numpy() == pytest.approx(wanted, abs=1e-9)


def test_the_kl_of_retain_rows_by_hand():
    seen, logits = output("retain")
    losses = divergence(seen)
    assert losses.detach().numpy() == pytest.approx(by_row((P0 * np.log(P0 / P)).sum(1)) / [2, 1], abs=1e-9)
    (found,) = torch.autograd.grad(losses.sum(), logits)
    assert found.numpy() == pytest.approx((P - P0) / T[:, None], abs=1e-9)


def test_rmu_by_hand():
    trainer = trainer_of("rmu", steering=20.0)
    trainer.steered = "block"
    trainer.method_state = {"direction": torch.tensor([0.6, 0.8])}
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    seen, _ = output()
    seen.hidden, seen._mask = {"block": hidden}, mask
    seen.original = SimpleNamespace(hidden={"block": torch.zeros_like(hidden)})
    target = 20 * np.array([0.6, 0.8])
    away = np.array([[1.0, 2.0], [3.0, 4.0]]) - target
    losses = trainer.forget_losses(seen)
    assert losses.detach().numpy() == pytest.approx([(away**2).mean()], abs=1e-5)
    (slope,) = torch.autograd.grad(losses.sum(), hidden)
    assert slope[0, :2].numpy() == pytest.approx(2 * away / 4, abs=1e-6) and not slope[0, 2].any()
    assert trainer.retain_losses(seen).item() == pytest.approx((1 + 4 + 9 + 16) / 4, abs=1e-9)


LANGUAGE = ["npo", "simnpo", "grad_diff", "wga", "sat_imp", "undial", "ceu", "idk_nll", "idk_dpo", "altpo"]
OPTIONS = {"altpo": {"alternates": 2, "alternate_tokens": 3}}


def make(method, folder, **more):
    model, splits, task = lm_setup(torch.float64)
    options = {"output_dir": str(folder), "use_cpu": True, "disable_tqdm": True, "alpha": 0.5, "max_steps": 1}
    kind = get_method(method)
    return kind(model, kind.config_class(**options | OPTIONS.get(method, {}) | more), splits, task, quiet=True)


def plain(trainer, rows):
    """For each row the log-probabilities of its supervised tokens, one row at a time and without any padding."""
    found = []
    for features in rows.__getitems__(range(4)):
        ids, labels = features["input_ids"][None], features["labels"]
        logits = trainer.model(input_ids=ids).logits[0].log_softmax(-1)
        places = [t for t in range(1, len(labels)) if labels[t] != -100]
        assert 0 < len(places) < len(labels) - 1  # a prompt that is not supervised
        found.append((torch.stack([logits[t - 1] for t in places]), labels[places]))
    return found


@pytest.mark.parametrize("method", LANGUAGE)
def test_prompts_and_padding_do_not_count(tmp_path, method):
    trainer = make(method, tmp_path)
    trainer.method_state, trainer.current_gradient_accumulation_steps = trainer._measure_originals(), 1
    streams = trainer.train_dataset.streams
    keys = [(name, i) for name in ("forget", "retain") for i in range(4)]
    batch = trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset.__getitems__(keys)))
    outputs = trainer._run(trainer.model, batch)
    assert ("retain" in outputs) == (trainer.args.alpha > 0)
    losses = trainer.forget_losses(outputs["forget"])
    rows = plain(trainer, streams["forget"])
    logits = torch.cat([values for values, _ in rows])
    labels = torch.cat([own for _, own in rows])
    example = torch.tensor([i for i, (_, own) in enumerate(rows) for _ in own])
    alone = SplitOutput("forget", Predictions(logits, labels, 4, example), torch.arange(4), 0.25)
    alone.original = Pass(Predictions(logits.detach(), labels, 4, example), {})
    expected = trainer.forget_losses(alone)
    assert losses.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-6)
    parameters = list(trainer.model.parameters())
    ours, theirs = (torch.autograd.grad(v.sum(), parameters) for v in (losses, expected))
    assert max((a - b).abs().max() for a, b in zip(ours, theirs, strict=True)) < 1e-6


def test_refusals_replace_answers_alone(tmp_path):
    _, splits, task = lm_setup()
    refused = refused_rows(splits.forget, ["red dog", "old cat"], seed=0)
    for own, other in zip(splits.forget.__getitems__(range(5)), refused.__getitems__(range(5)), strict=True):
        prompt = int((own["labels"] == -100).sum())
        assert torch.equal(own["input_ids"][:prompt], other["input_ids"][:prompt])
        answer = task.processor.decode(other["input_ids"][other["labels"] != -100], skip_special_tokens=True)
        assert answer in ("red dog", "old cat")
    assert refused.answers == refused_rows(splits.forget, ["red dog", "old cat"], seed=0).answers
    assert len(set(refused.answers)) == 2


def test_made_up_answers(tmp_path):
    """They are drawn with the seed, differ from the row's own, and every pass takes the next set of them."""
    trainer = make("altpo", tmp_path, max_steps=4)
    state = torch.random.get_rng_state()
    made = [trainer._measure_originals()["alternates"] for _ in range(2)]
    assert torch.equal(*made) and torch.equal(torch.random.get_rng_state(), state)
    rows = trainer.splits.forget
    answers, own = trainer.preferred.answers, rows.source.select(rows.indices)["answer"]
    assert len(answers) == 2 * len(rows) and answers == unpacked(packed(answers))
    assert not any(text == own[i % len(rows)] or not text for i, text in enumerate(answers))
    assert trainer.preferred.indices == rows.indices * 2 and len(set(answers)) > len(rows)
    sizes = trainer.stream_sizes()["forget"]
    for step, which in ((0, 0), (sizes.batches, 1), (2 * sizes.batches, 0)):
        trainer.state.global_step = step
        assert trainer.preferred_index(torch.tensor([1])).tolist() == [1 + which * len(rows)]
    trainer = make("altpo", tmp_path, per_device_forget_batch_size=8, alternates=5)  # eleven rows: eight, then three
    for step in range(10):
        trainer.state.global_step = step
        assert trainer.preferred_index(torch.tensor([1])).tolist() == [1 + step // 2 * len(rows)]
    trainer._draw = lambda rows, *which: [" "] * len(rows)
    with pytest.raises(UserError, match=f"no other answer for {len(rows)} of {len(rows)} forget rows"):
        trainer._made_up()


def test_the_original_is_asked_again_behind_question_and_answer():
    _, splits, task = lm_setup()
    row = {"question": ["red"], "answer": ["blue"]}
    assert task.asked_again(row, "Change it.")["question"] == ["red\nblue\n\nChange it."]
    told = [{"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"}]
    asked = task.asked_again({"question": [told[:1]], "answer": [told[1:]]}, "Change it.")
    assert asked["question"][0][-1]["content"] == "red\nblue\n\nChange it." and asked["answer"] == [told[1:]]
    task.columns = {"messages": "messages"}
    (chat,) = task.asked_again({"messages": [told]}, "Change it.")["messages"]
    assert [m["content"] for m in chat] == ["red\nblue\n\nChange it.", "blue"]


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "some.txt").write_text("No idea.\n\n I pass. \n")
    assert read_refusals(str(tmp_path / "some.txt")) == ["No idea.", "I pass."]
    made = RefusalConfig(output_dir=str(tmp_path), refusals=str(tmp_path / "some.txt"))
    assert made.hyperparameters()["refusals"] == "some.txt"
    for kind, options, said in (
        (RefusalConfig, {"refusals": str(tmp_path / "none.txt")}, "cannot be read"),
        (RefusalConfig, {"refusals": str(tmp_path / "empty.txt")}, "holds no line"),
        (get_method("altpo").config_class, {"alternates": 0}, "`alternates` is 0"),
        (get_method("altpo").config_class, {"instruction": " "}, "`instruction` is empty"),
        (get_method("npo").config_class, {"beta": 0}, "`beta` is 0"),
        (get_method("grad_diff").config_class, {"alpha": -1}, "`alpha` is -1"),
        (get_method("grad_diff").config_class, {"retain_term": "mse"}, "`retain_term` is 'mse'"),
        (RMUConfig, {"retain_term": "kl"}, "`retain_term`"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            kind(output_dir=str(tmp_path), **options)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="blocks 0 to 1"):
        make("rmu", tmp_path, layer=2)
