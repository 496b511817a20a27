"""What says how an unseen model would see a row, and what it must not have seen."""

import dataclasses

import numpy as np
import pytest
import torch
from toy import SETUPS, image_setup, lm_setup, splits_of, text_setup

from hf_unlearn.errors import UserError
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.methods.salun import SalUnConfig, SalUnTrainer
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.proxy_source import NO_BASE, Proxy
from hf_unlearn.trainers.restoring import is_worse
from hf_unlearn.trainers.row_targets import RemovedClasses, Unmet
from hf_unlearn.trainers.target_sources import (
    Asked,
    Blend,
    Oracle,
    Probe,
    Said,
    TargetSource,
    blend_weights,
    fit_probe,
    probe_log_odds,
)


def make(folder, setup, base_name: str | None = "someone/base", **more):
    model, splits, task = setup

    def start(seed: int):
        torch.manual_seed(seed)
        base = type(model)(model.config)
        base.config._name_or_path = base_name
        return base

    kwargs = {"output_dir": str(folder), "use_cpu": True, "disable_tqdm": True, "report_to": "none", "max_steps": 2}
    args = NablaTauConfig(**kwargs | more)
    recipe = KnownRecipe(start, epochs=3, learning_rate=1e-3)
    return NablaTauTrainer(model, args, splits, task, quiet=True, recipe=recipe)


def test_a_probe_finds_what_is_linear_and_says_log_odds():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300) * 2  # classes 0, 2 and 4; 1 and 3 are never seen
    features = rng.normal(size=(300, 5)) + 4 * np.eye(5)[labels]
    model = fit_probe(features[:200], labels[:200], features[200:], labels[200:])
    log_odds = probe_log_odds(model, features[200:], classes=5)
    assert (log_odds.argmax(1) == labels[200:]).mean() > 0.95
    p = model.predict_proba(features[200:])
    assert np.allclose(log_odds[:, [0, 2, 4]], np.log(p) - np.log1p(-p), atol=1e-6)
    assert np.all(log_odds[:, [1, 3]] == pytest.approx(-30.0))


def test_the_strength_is_chosen_by_rows_that_were_not_fitted():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(120, 40)), rng.integers(0, 2, 120)  # nothing to learn
    assert fit_probe(features[:60], labels[:60], features[60:], labels[60:]).C == 0.3
    assert fit_probe(features[:60], labels[:60], features[:60], labels[:60]).C == 300.0


@pytest.mark.parametrize("base, source", [("someone/base", Blend), (None, Proxy)])
def test_a_pretrained_base_is_probed_too_and_scratch_gets_a_proxy(tmp_path, base, source):
    assert type(make(tmp_path, text_setup(), base).target_source()) is source


def test_a_proxy_that_is_trained_for_long_needs_no_probe(tmp_path, monkeypatch):
    kinds = {}
    for enough in (1, 10_000):
        monkeypatch.setattr("hf_unlearn.trainers.row_target_trainer.ENOUGH_PROXY_STEPS", enough)
        kinds[enough] = [type(source) for source in make(tmp_path, text_setup()).target_source().sources]
    assert kinds == {1: [Proxy], 10_000: [Probe, Proxy]}


def test_a_proxy_in_haste_is_trained_at_a_higher_rate(tmp_path, monkeypatch):
    trainer, rates = make(tmp_path, text_setup()), []

    def note(proxy, args, *rest, **options):
        rates.append(args.learning_rate)
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_unlearn.trainers.proxy_source.RetainOnlyTrainer", note)
    for proxy in (Proxy(), trainer.target_source().sources[-1]):
        with pytest.raises(KeyboardInterrupt):
            proxy.ask(trainer)
    assert rates == [1e-3, 2e-3]


def test_steps_on_a_pretrained_base_do_not_grow_with_what_is_kept(tmp_path):
    retain = len(text_setup()[1].retain)
    one, all_ = (make(tmp_path, text_setup(), per_device_train_batch_size=batch).args for batch in (1, retain))
    assert one.proxy_epochs == pytest.approx(min(160 / retain, 3 / 4)) and all_.proxy_epochs == 3 / 4
    assert one.num_train_epochs == pytest.approx(min(40 / retain, 3 / 15)) and all_.num_train_epochs == 3 / 15
    assert make(tmp_path, text_setup(), proxy_epochs=0.5).args.proxy_epochs == 0.5
    held = make(tmp_path, text_setup(), variant="held").args
    assert held.proxy_epochs == pytest.approx(0.3) and held.num_train_epochs == pytest.approx(0.2)


def test_a_language_model_from_a_pretrained_base_gets_a_proxy_in_haste_and_no_probe(tmp_path):
    trainer = make(tmp_path, lm_setup())
    retain = trainer.args.train_batch_size / len(trainer.splits.retain)
    assert trainer.args.proxy_epochs == pytest.approx(min(160 * retain, 3 / 4))
    source = trainer.target_source()
    assert type(source) is Proxy and source.haste == 2.0


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_probe_trains_nothing_and_counts_what_it_reads(tmp_path, monkeypatch, kind):
    trainer = make(tmp_path, SETUPS[kind]())
    trainer.source = Probe(trainer.recipe.start(0))
    monkeypatch.setattr("hf_unlearn.trainers.proxy_source.train_proxy", None)  # asking for one would raise
    trainer.train()
    splits = trainer.splits
    assert trainer.method_state["targets"].shape == (len(splits.forget),)
    assert any("Targets come from a probe that" in note for note in trainer.notes)
    before = make(tmp_path, SETUPS[kind]())
    before.source = Probe(trainer.recipe.start(0))
    before.settle_hold(0.0, 1.0)  # nothing is held, so that nothing else is read
    before.ask_source()
    calibrated = len(before.calibration_rows)
    read = len(splits.retain) + calibrated + len(splits.forget)
    assert int(before.method_state["side_examples"]) == read + calibrated


class Says(TargetSource):
    """Log-odds that were written down beforehand."""

    def __init__(self, name: str, *log_odds: np.ndarray):
        self.name, self.log_odds = name, log_odds

    def ask(self, trainer):
        return Asked(*map(Said, self.log_odds))


def test_a_blend_comes_as_near_to_the_model_as_its_sources_can(tmp_path):
    trainer, rng = make(tmp_path, text_setup()), np.random.default_rng(0)
    rows, count = trainer.calibration_rows, len(trainer.splits.forget)
    own = np.arange(len(rows)), trainer.labels_of(rows)
    model = trainer.look(rows, trainer.model).log_odds
    unit = model[own].std()
    seen = [scale * (model / unit + noise * rng.normal(size=model.shape)) for scale, noise in ((50, 1), (5, 0.2))]
    forget = [rng.normal(size=(count, 4)) for _ in seen]
    blend = Blend(Says("hare", seen[0], forget[0]), Says("tortoise", seen[1], forget[1]))
    asked = blend.ask(trainer)
    spreads = [said[own].std() for said in seen]
    each = np.stack([said[own] / spread for said, spread in zip(seen, spreads, strict=True)], axis=1)
    weights = blend_weights(each, model[own])
    assert 0 < weights[0] < weights[1]
    assert asked.forget.log_odds == pytest.approx(
        weights[0] * forget[0] / spreads[0] + weights[1] * forget[1] / spreads[1]
    )
    assert asked.steadies and blend.name == "hare and a tortoise" and not trainer.notes


def test_many_rows_say_how_far_each_source_is_believed_and_few_rows_hardly():
    rng = np.random.default_rng(0)

    def weights(rows: int) -> np.ndarray:
        model = rng.normal(size=rows)
        poor, good = model + 2 * rng.normal(size=rows), model + 0.5 * rng.normal(size=rows)
        return blend_weights(np.stack([poor / poor.std(), good / good.std()], axis=1), model)

    poor, good = weights(100_000)
    spread = np.array([5**0.5, 1.25**0.5])
    least_squares = np.linalg.solve([[5, 1], [1, 1.25]], [1, 1]) * spread
    assert (poor, good) == pytest.approx(least_squares, rel=0.03) and good > 5 * poor
    poor, good = np.mean([weights(4) for _ in range(200)], axis=0)
    assert good < 1.3 * poor


def test_a_source_that_goes_against_the_model_gets_no_weight(tmp_path):
    trainer = make(tmp_path, text_setup())
    seen = trainer.look(trainer.calibration_rows, trainer.model).log_odds
    said = seen, np.zeros((len(trainer.splits.forget), 4))
    signs = {"with": 1, "against": -1}
    for order in (("against", "with"), ("with", "against")):
        blend = Blend(*(Says(name, *(signs[name] * part for part in said)) for name in order))
        asked = blend.ask(trainer)
        assert np.corrcoef(asked.validation.log_odds.ravel(), seen.ravel())[0, 1] > 0.999
        assert blend.name == "with" and "A against was asked" in trainer.notes.pop()
    alone = Blend(Says("against", *(-part for part in said)))
    assert alone.ask(trainer) and alone.name == "against"  # the only one there is


def test_a_pretrained_base_gives_targets_that_are_believed_in_part(tmp_path):
    trainer = make(tmp_path, text_setup())
    trainer.train()
    state = trainer.method_state
    assert bool(state["steadies"]) and state["targets"].shape == (len(trainer.splits.forget),)
    scratch = make(tmp_path, text_setup(), base_name=None)
    scratch.train()
    assert not scratch.method_state["steadies"]
    assert any("Targets come from a proxy that never saw" in note for note in scratch.notes)


def test_an_oracle_is_the_mean_of_its_twins(tmp_path):
    trainer = make(tmp_path, text_setup())
    twins = [text_setup()[0], other(text_setup()[0])]
    asked = Oracle(twins).ask(trainer)
    each = [trainer.look(trainer.splits.forget, twin).log_odds for twin in twins]
    assert np.allclose(asked.forget.log_odds, np.mean(each, axis=0)) and not np.allclose(*each)
    assert asked.validation.log_odds.shape == (len(trainer.calibration_rows), 4)


FORMS = {
    "tokens": (NablaTauTrainer, NablaTauConfig, {"variant": "tokens"}),
    "rows": (NablaTauTrainer, NablaTauConfig, {"variant": "rows"}),
    "salun": (SalUnTrainer, SalUnConfig, {"saliency": 1.0}),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_oracle_tells_the_targets_of_a_language_model(tmp_path, monkeypatch, form):
    monkeypatch.setattr("hf_unlearn.trainers.proxy_source.train_proxy", None)  # no proxy is trained
    (kind, config, values), (model, splits, task) = FORMS[form], lm_setup(torch.float64)
    args = config(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none", max_steps=2, **values)
    trainer = kind(model, args, splits, task, quiet=True)
    twins = [other(lm_setup(torch.float64)[0], seed) for seed in (1, 2)]
    trainer.source = Oracle(twins)
    trainer.train()
    assert any("Targets come from a mean of retrained twins" in note for note in trainer.notes)
    state, tokens = trainer.method_state, sum(int((f["labels"] != -100).sum()) for f in every(splits.forget))
    assert state["targets"].shape == (len(splits.forget),) and state["targets"].isfinite().all()
    if form != "rows":
        assert state["token_targets"].shape == (tokens,)
    said = [trainer.look(splits.forget, twin) for twin in twins]
    if form == "salun":
        mean = np.mean([each.by_token.values for each in said], axis=0)
        assert np.allclose(state["token_forget"], mean)
    if form != "tokens":
        assert np.allclose(state["proxy_forget"][:, 0], np.mean([each.log_odds[:, 0] for each in said], axis=0))


@pytest.mark.parametrize("form", FORMS)
def test_every_row_is_looked_at_once_by_the_proxy_and_counted(tmp_path, monkeypatch, form):
    (kind, config, values), (model, splits, task) = FORMS[form], lm_setup()
    args = config(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none", **values)
    trainer = kind(model, args, splits, task, quiet=True)
    monkeypatch.setattr("hf_unlearn.trainers.proxy_source.train_proxy", lambda trainer, proxy, *_: other(proxy))
    seen, predict = {"model": 0, "proxy": 0}, task.predict

    def counting(which, batch):
        seen["model" if which in (trainer.model, trainer.model_wrapped) else "proxy"] += len(batch["labels"])
        return predict(which, batch)

    monkeypatch.setattr(task, "predict", counting)
    monkeypatch.setattr(task, "embed", None)  # places come from the same pass
    trainer.method_state |= trainer.prepare()
    assert seen["proxy"] == len(splits.forget) + len(trainer.calibration_rows)
    checked = len(splits.forget) + len(splits.retain)
    assert seen["model"] == checked + len(trainer.calibration_rows) + trainer.rows_of_retain()
    assert int(trainer.method_state["side_examples"]) == sum(seen.values())


def test_where_a_single_class_is_kept_no_probe_is_asked(tmp_path):
    """A probe tells classes apart: of two, one is removed."""
    model, splits, task = text_setup()
    labels = splits.forget.source["label"]
    ones, others = ([i for i, label in enumerate(labels) if (label == 1) == gone] for gone in (True, False))
    zeros = [i for i in others if labels[i] == 0]
    splits.forget, splits.retain = splits.forget.at(ones[:8]), splits.forget.at(zeros[:10])
    splits.validation_tau = splits.validation_tau.at(zeros[10:15] + ones[8:12])
    splits.validation_stop, splits.forgotten_classes = splits.validation_tau.at(zeros[15:17]), (1,)
    trainer = make(tmp_path, (model, splits, task))
    assert isinstance(trainer.target_source(), Blend)
    assert trainer.source_name == "proxy"  # and the plan counts no other
    trainer.train()
    assert any("Targets come from a proxy that" in note for note in trainer.notes)
    assert torch.isfinite(trainer.method_state["targets"]).all()
    with pytest.raises(UserError, match="rows of a single one are kept"):
        Probe(text_setup()[0]).ask(trainer)


def test_a_probe_is_for_classes(tmp_path):
    trainer = make(tmp_path, lm_setup())
    with pytest.raises(UserError, match="rows of causal_lm have none"):
        Probe(lm_setup()[0]).ask(trainer)


def other(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """The same model with other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return model


def every(rows) -> list[dict]:
    return rows.__getitems__(range(len(rows)))


def test_a_removed_class_is_held_where_a_model_that_never_met_it_stands():
    sure = np.array([0.0, 1.0, 2.0, 3.0])
    validation = np.stack([np.zeros(4), -4 - sure], axis=1)  # the surer of another class, the less likely class 1
    removed = RemovedClasses(np.array([-1, 1, 1]), sure, np.array([0.0, 0.5, 9.0]))
    targets = removed.fit(np.array([5.0, 5.0, 5.0]), validation)
    assert targets.tolist() == pytest.approx([5.0, -4.5, -7.0])  # never below what is seen on validation rows


def test_what_a_trained_source_says_bounds_the_targets_of_a_removed_class_from_above():
    sure = np.array([0.0, 1.0, 2.0, 3.0])
    validation = np.stack([np.zeros(4), -4 - sure], axis=1)
    own = np.array([0, 1, 1]), sure, np.array([0.0, 0.5, 2.0])
    said = np.array([-9.0, -5.0, -5.0])  # the first row's class is kept
    for ends, expected in ((False, [5.0, -5.0, -6.0]), (True, [5.0, -5.0, -5.0])):
        removed = RemovedClasses(own[0] * 2 - 1, own[1], own[2], Unmet(said, ends))
        assert removed.fit(np.full(3, 5.0), validation).tolist() == pytest.approx(expected)


def without_a_class(setup):
    """The setup with class 1 as the request."""
    model, splits, task = setup
    labels = np.array(splits.forget.source["label"])
    train = np.arange(41)
    parts = {"forget": train[labels[train] == 1], "retain": train[labels[train] != 1]}
    rest = splits_of(splits.forget.source, task)
    for name, places in parts.items():
        setattr(rest, name, rest.forget.at(places))
    return model, rest, task


@pytest.mark.parametrize("source", ["proxy", "probe and a proxy", "oracle"])
def test_the_log_odds_of_a_removed_class_that_bound_its_targets_are_in_nats(tmp_path, monkeypatch, source):
    trainer = make(tmp_path, without_a_class(text_setup()))
    proxy = other(text_setup()[0])
    monkeypatch.setattr("hf_unlearn.trainers.proxy_source.train_proxy", lambda *_: proxy)
    trainer.source = {
        "proxy": Proxy(),
        "probe and a proxy": Blend(Probe(trainer.recipe.start(0)), Proxy()),
        "oracle": Oracle([proxy]),
    }[source]
    trainer.method_state |= trainer.ask_source()
    forget = trainer.splits.forget
    said = trainer.own_log_odds(trainer.look(forget, proxy), forget)
    state = trainer.method_state
    assert np.allclose(state["unmet"], said) and bool(state["unmet_ends"]) == (source == "oracle")
    trainer._measure_targets()
    if source == "oracle":
        assert np.allclose(state["targets"], said)
    else:
        assert np.all(state["targets"].numpy() <= said + 1e-6)


def test_a_probe_alone_bounds_nothing(tmp_path):
    trainer = make(tmp_path, without_a_class(text_setup()))
    trainer.source = Probe(trainer.recipe.start(0))
    assert "unmet" not in trainer.ask_source()


def test_targets_of_a_removed_class_are_measured_once(tmp_path):
    trainer = make(tmp_path, without_a_class(SETUPS["image"]()), max_steps=8)
    held = []
    fit = trainer._measure_targets
    trainer._measure_targets = lambda: (fit(), held.append(trainer.method_state["targets"].clone()))
    trainer.train()
    assert len(held) == 5 and all(torch.equal(held[0], later) for later in held)


def test_targets_follow_the_model_unless_it_is_being_damaged(tmp_path):
    """A drift of all validation rows within chance is followed, a loss that is clearly higher is not."""
    model, splits, task = image_setup()
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, proxy_epochs=1)
    trainer = NablaTauTrainer(model, args, splits, task, quiet=True)
    trainer.method_state = trainer.ask_source()
    first = trainer.calibrate()
    rng = np.random.default_rng(0)

    def targets_at(shift):
        """Measured on a model whose log-odds lie so much higher, and scattered."""
        noise = rng.normal(size=(len(first.log_odds), 1))
        trainer._calibrated = (0, dataclasses.replace(first, log_odds=first.log_odds + shift + noise))
        trainer._measure_targets()
        return trainer.method_state["targets"].clone()

    start = targets_at(0.0)
    drifted = targets_at(-0.1)
    assert not torch.equal(start, drifted) and drifted.mean() < start.mean() + 1
    assert torch.equal(targets_at(-4.0), drifted)
    better = targets_at(4.0)
    assert better.mean() > drifted.mean() + 2
    assert torch.equal(targets_at(0.0), better)  # what was fine before is damage now


def test_damage_is_judged_row_by_row():
    best = np.linspace(0, 3, 40)
    noise = np.tile([-1.0, 1.0], 20)
    assert not is_worse(best + noise + 0.3, best) and is_worse(
        best + noise + 0.4, best
    )  # two standard errors are 0.32
    assert is_worse(best + 0.001, best) and not is_worse(best, best) and not is_worse(best - 1, best)


def test_few_validation_rows_all_measure_targets_and_many_in_halves(tmp_path, monkeypatch):
    trainer = make(tmp_path, text_setup())
    splits = trainer.splits
    assert trainer.calibration_rows.indices == [*splits.validation_tau.indices, *splits.validation_stop.indices]
    assert any("all 19 validation rows measure targets" in line for line in trainer.plan())
    monkeypatch.setattr("hf_unlearn.data.splits.FEW_MEASURING", len(splits.validation_tau))
    trainer = make(tmp_path, text_setup())
    assert trainer.calibration_rows.indices == splits.validation_tau.indices
    assert not any("measure targets" in line for line in trainer.plan())


def test_plan_and_note_say_that_a_base_which_is_not_named_would_help(tmp_path):
    model, splits, task = text_setup()
    args = NablaTauConfig(str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none", max_steps=2)
    trainer = NablaTauTrainer(model, args, splits, task, quiet=True)
    assert NO_BASE in trainer.plan()
    trainer.train()
    assert [note for note in trainer.notes if NO_BASE[1:] in note]
    known = make(tmp_path, text_setup(), base_name=None)
    known.train()
    assert NO_BASE not in known.plan() and not [note for note in known.notes if NO_BASE[1:] in note]


def test_a_note_says_how_far_all_targets_may_be_off(tmp_path):
    """95 % of the mean of so many rows, whose log-odds are left around the source's line by √(1 − r²) of their own."""
    trainer = make(tmp_path, text_setup())
    rows = trainer.calibration_rows
    model = trainer.look(rows, trainer.model).log_odds
    own = model[np.arange(len(rows)), trainer.labels_of(rows)]
    said = model + np.random.default_rng(0).normal(size=model.shape)
    trainer.source = Says("somebody", said, np.zeros((len(trainer.splits.forget), 4)))
    trainer.ask()
    r = np.corrcoef(said[np.arange(len(rows)), trainer.labels_of(rows)], own)[0, 1]
    level = 1.96 * own.std() * np.sqrt((1 - r**2) / len(rows))
    assert f"on 19 validation rows its log-odds go with the model's at r = {r:.2f}" in trainer.notes[-1]
    assert trainer.notes[-1].count(f"is known to ± {level:.2g} nats") == 1
