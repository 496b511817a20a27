"""`hf-unlearn lira`: who is in which model, what is kept and taken up again, and what the four verdicts say."""

import importlib.metadata
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import tiny

from hf_unlearn.cli import main
from hf_unlearn.commands import lira as command
from hf_unlearn.commands.lira import LiraArguments, attack, render_lira
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.shadow_plan import fixed_plan, make_plan
from hf_unlearn.methods import get_method
from hf_unlearn.report.evidence import validate
from hf_unlearn.run import shadow_models, stages
from hf_unlearn.run.recipe_cache import outside_code

SECRET = "xyzzy"


@pytest.mark.parametrize("share, sets", [(0.1, 4), (0.02, 2), (0.5, 4), (0.3, 3)])
def test_every_row_is_a_member_of_half_of_the_models_and_is_looked_at_once_in_each(share, sets):
    plan = make_plan(np.arange(200), share, sets, seed=3)
    divisions = [plan.division("shadow", k) for k in range(6)]
    member = np.stack([d.member for d in divisions])
    assert (member.sum(axis=0) == 3).all()
    assert not np.array_equal(member[0], member[2]) and np.array_equal(member[0], ~member[1])
    for division in divisions:
        kept = plan.kept(division)
        assert len(kept) == 200 - plan.sets * plan.size
        for part in range(plan.sets):
            both = [(division.part == part) & (division.member == side) for side in (True, False)]
            assert [side.sum() for side in both] == [plan.size, plan.size]
        # A forget set is as large a share of the model's rows as the request is of all rows.
        assert plan.size / len(kept) == pytest.approx(share, abs=0.6 / len(kept) + 0.002)


def test_a_model_stays_the_same_however_many_there_are_and_roles_differ():
    plan = make_plan(np.arange(100), 0.1, 2, seed=0)
    again = make_plan(np.arange(100), 0.1, 2, seed=0)
    assert np.array_equal(plan.division("shadow", 3).member, again.division("shadow", 3).member)
    assert not np.array_equal(plan.division("shadow", 0).member, plan.division("target", 0).member)
    other = make_plan(np.arange(100), 0.1, 2, seed=1)
    assert not np.array_equal(plan.audited, other.audited)


def test_groups_stay_together():
    unit = np.repeat(np.arange(30), np.random.default_rng(0).integers(1, 6, 30)) * 7
    plan = make_plan(unit, 0.1, 3, seed=0)
    division, groups = plan.division("target", 1), unit[plan.rows]
    for group in np.unique(groups):
        assert len(set(division.member[groups == group])) == len(set(division.part[groups == group])) == 1


def test_a_removed_class_is_in_every_second_model():
    forget = np.arange(3, 60, 4)
    plan = fixed_plan(forget, 60, seed=0)
    assert np.array_equal(plan.rows, forget) and plan.sets == 1
    for role in ("shadow", "target"):
        for k in range(4):
            division = plan.division(role, k)
            assert (division.member == (k % 2 == 0)).all() and not division.part.any()
            assert len(plan.kept(division)) == (60 if k % 2 == 0 else 60 - len(forget))
    with pytest.raises(UserError, match="only 9 rows"):
        fixed_plan(np.arange(9), 60, seed=0)


class Planted:
    """φ as a method leaves it that lowers what it knew of a row by the share `forgets`, and every row by `damage`."""

    def __init__(self, plan, forgets: float, damage: float = 0.0):
        self.plan, self.forgets, self.damage = plan, forgets, damage
        self.difficulty = np.random.default_rng(0).normal(0, 2, len(plan.rows))

    def load(self, role, k):
        member = self.plan.division(role, k).member
        noise = np.random.default_rng([5, role == "target", k]).normal(0, 1, (2, len(member)))
        gain = np.array([1.0, 1.0 - self.forgets])[:, None] * 1.5 * member
        original, unlearned = self.difficulty + gain + noise
        return {"original": original, "unlearned": unlearned - self.damage if member.any() else original}


@pytest.fixture(scope="module")
def planted():
    def run(forgets, targets=4, damage=0.0, fixed=False):
        plan = fixed_plan(np.arange(40), 400, seed=0) if fixed else make_plan(np.arange(400), 0.1, 4, seed=0)
        own = LiraArguments(shadows=32, targets=targets, forget_sets=4)
        from hf_unlearn.run.parsing import parse_arguments

        arguments = parse_arguments(["--method", "fine_tune", "--use_cpu", "true"])
        return attack(arguments, plan, Planted(plan, forgets, damage), own)

    return run


def test_planted_models(planted):
    """The original is told, the twins are not; a method that forgets all is like them, one that does not is not."""
    for forgets, found in ((1.0, False), (0.0, True)):
        result = planted(forgets)
        auc = {name: each["pooled"]["auc"] for name, each in result["attacks"].items()}
        assert result["attacks"]["original"]["variance"] == "pooled" and result["targets"] == 4
        assert auc["original"]["value"] > 0.8 and auc["original"]["interval"][0] > 0.7
        assert auc["twins"]["interval"][0] < 0.5 < auc["twins"]["interval"][1]
        low, high = auc["fine_tune"]["interval"]
        assert (low > 0.7) if found else (low < 0.5 < high)
        for game in ("privacy", "efficacy"):
            low, high = result["ruli"]["fine_tune"][game]["all"]["auc"]["interval"]
            assert (low > 0.7) if found else (low < 0.5 < high)
            low, high = result["ruli"]["twins"][game]["all"]["auc"]["interval"]
            assert low < 0.5 < high
        above = {
            name: {kind: each[name] / each["null_median"] for kind, each in result[verdict].items()}
            for verdict, name in (("epsilon", "epsilon_median"), ("klom", "klom_median"))
        }
        for ratio in above.values():  # to chance: the twins have half the models of either kind
            assert ratio["original"] > 1.3 > 1.2 > ratio["twins"] > 0.8
            assert ratio["fine_tune"] == pytest.approx(ratio["original" if found else "twins"], rel=0.2)
        text = render_lira(result)
        assert (
            "over target models" in text.replace("\n", " ")
            and "twins" in text
            and max(map(len, text.splitlines())) <= 100
        )


def test_damage_is_seen_by_efficacy_and_klom_not_by_an_outsider(planted):
    """A method that forgets, and lowers φ of every row: nobody learns from it who was forgotten, and it is far from
    retraining."""
    result = planted(1.0, damage=2.0)
    games = {name: game["all"]["auc"] for name, game in result["ruli"]["fine_tune"].items()}
    assert games["privacy"]["interval"][0] < 0.5 < games["privacy"]["interval"][1]
    assert games["efficacy"]["interval"][0] > 0.8
    klom = result["klom"]["fine_tune"]
    assert klom["klom_median"] > 1.5 * klom["null_median"] > 0
    assert result["klom"]["twins"]["klom_median"] < 1.2 * result["klom"]["twins"]["null_median"]


def test_a_removed_class_is_judged_over_pairs_of_models(planted):
    for forgets, found in ((1.0, False), (0.0, True)):
        result = planted(forgets, targets=8, fixed=True)
        figures = result["attacks"]["fine_tune"]["pooled"]
        assert figures["targets"] == 4 and figures["clustered"] and result["forget_rows"] == 40
        assert result["attacks"]["twins"]["pooled"]["targets"] == 4
        low, high = figures["auc"]["interval"]
        assert (low > 0.7) if found else (low < 0.5 < high)
        assert "two models are one trial" in render_lira(result).replace("\n", " ")


def test_the_result_holds_no_figure_of_a_single_row(planted):
    def longest(value):
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        return max(len(value), *map(longest, value)) if isinstance(value, list) and value else 0

    result = planted(1.0, targets=1)
    assert longest({key: value for key, value in result.items() if key != "notes"}) == 2 < len(result["notes"])
    assert result["attacks"]["fine_tune"]["pooled"]["clustered"] is False


def config(folder: Path, **more) -> dict:
    original = {"model_type": "vit", "model_config": tiny.VIT, "num_train_epochs": 2, "learning_rate": 1e-2}
    return tiny.own_data(folder, "image_classification", method="fine_tune", cache_dir=str(folder / "cache")) | {
        "original": original | {"batch_size": 16}, "output_dir": str(folder / "out"),
    } | more  # fmt: skip


def lira(folder: Path, values: dict, *argv: str) -> int:
    values.pop("proxy_epochs", None)
    return main(["lira", "--config", tiny.write_config(folder, values), "--forget_sets", "2", *argv])


def test_the_command(tmp_path, monkeypatch, capsys):
    """A run that stops goes on; more models are added to those there are; what was there is not made again."""
    trained, unlearned = [], []
    train, unlearn = stages.train_by_recipe, shadow_models.ShadowMaker._unlearn

    def counted_train(arguments, data, rows, seed, title):
        trained.append((len(rows), seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(arguments, data, rows, seed, title)

    def counted_unlearn(self, model, forget, retain, seed):
        unlearned.append((len(forget), len(retain), seed))
        assert not set(forget) & set(retain)
        return unlearn(self, model, forget, retain, seed)

    monkeypatch.setattr(stages, "train_by_recipe", counted_train)
    monkeypatch.setattr(shadow_models.ShadowMaker, "_unlearn", counted_unlearn)
    assert lira(tmp_path, config(tmp_path), "--shadows", "4", "--targets", "1") == 130
    assert not (tmp_path / "out").exists() and len(unlearned) == 4
    assert lira(tmp_path, config(tmp_path), "--shadows", "4", "--targets", "1") == 0
    assert len(trained) == 3 + 3 and len({seed for _, seed in trained}) == 5 and len(set(unlearned)) == 10
    result = json.loads((tmp_path / "out" / "lira.json").read_text())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lira.json"]
    assert list(result["attacks"]) == list(result["epsilon"]) == ["original", "fine_tune", "twins"]
    assert {rows for rows, _ in trained} == {result["training_rows"]}
    assert {size for size, _, _ in unlearned} == {result["forget_rows"]}
    assert result["attacks"]["fine_tune"]["shadows"] == 4 and result["attacks"]["fine_tune"]["pooled"]["targets"] == 1
    assert "3 of them done before" not in capsys.readouterr().out

    run = config(tmp_path, output_dir=str(tmp_path / "run"))
    run.pop("proxy_epochs")
    assert main(["train", "--config", tiny.write_config(tmp_path, run)]) == 0
    values, add = config(tmp_path, output_dir=str(tmp_path / "more")), ["--add_to", str(tmp_path / "run")]
    del trained[6:]
    assert lira(tmp_path, values, "--shadows", "4", "--targets", "2", *add) == 0
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    result = json.loads((tmp_path / "more" / "lira.json").read_text())
    assert evidence["lira"]["models"]["fine_tune"]["auc"] == result["attacks"]["fine_tune"]["pooled"]["auc"]
    assert validate(evidence) == []
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(name in page for name in ("U-LiRA", "RULI privacy, most memorized", "KLoM", "ε"))
    assert len(trained) == 7 and "5 of them done before" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "cache").glob("lira-*/*"))
    assert files == [f"shadow-{k:05d}.safetensors" for k in range(4)] + [f"target-{k:05d}.safetensors" for k in (0, 1)]
    first = next((tmp_path / "cache").glob("lira-*/shadow-00000.safetensors"))
    first.write_bytes(b"cut off")
    values["output_dir"] = str(tmp_path / "third")
    assert lira(tmp_path, values, "--shadows", "4", "--targets", "2") == 2
    assert "is damaged" in capsys.readouterr().err and not (tmp_path / "third").exists()


def test_a_method_of_others_that_was_changed_is_measured_again(tmp_path, monkeypatch):
    """What the models of another version of it made of rows says nothing of this one."""
    keys, key = [], shadow_models._key
    monkeypatch.setattr(shadow_models, "_key", lambda *of: keys.append(key(*of)) or keys[-1])
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "softly_tuned.py"
    code = "from hf_unlearn.methods.fine_tune import FineTuneTrainer\n\n\nclass Softly(FineTuneTrainer):\n    {}\n"
    for body in ("pass", "pass", "alpha = 2"):
        file.write_text(code.format(body))
        values = config(tmp_path, method="softly_tuned:Softly", output_dir=str(tmp_path / "dry"))
        assert lira(tmp_path, values, "--shadows", "4", "--targets", "1", "--dry_run", "true") == 0
    assert keys[0] == keys[1] != keys[2]
    assert outside_code(get_method("fine_tune")) == {}


def test_models_of_another_kind_of_device_are_no_part_of_the_pool(tmp_path, monkeypatch):
    """The same seed gives other weights there, and a verdict would lie between two populations."""
    keys, key = [], shadow_models._key
    monkeypatch.setattr(shadow_models, "_key", lambda *of: keys.append(key(*of)) or keys[-1])
    for kind in ("cpu", "cpu", "accelerator"):
        monkeypatch.setattr(shadow_models, "device_kind", lambda use_cpu, kind=kind: kind)
        values = config(tmp_path, output_dir=str(tmp_path / "dry"))
        assert lira(tmp_path, values, "--shadows", "4", "--targets", "1", "--dry_run", "true") == 0
    assert keys[0] == keys[1] != keys[2]


def test_another_peft_makes_other_models_only_where_adapters_are_trained(tmp_path, monkeypatch):
    keys, key, version = [], shadow_models._key, importlib.metadata.version
    monkeypatch.setattr(shadow_models, "_key", lambda *of: keys.append(key(*of)) or keys[-1])
    for adapter in (False, True):
        for peft in (version("peft"), "0.0"):
            found = lambda name, peft=peft: peft if name == "peft" else version(name)  # noqa: E731
            monkeypatch.setattr(importlib.metadata, "version", found)
            values = config(tmp_path, output_dir=str(tmp_path / "dry"), use_peft=adapter)
            assert lira(tmp_path, values, "--shadows", "4", "--targets", "1", "--dry_run", "true") == 0
    assert keys[0] == keys[1] and keys[2] != keys[3]


def test_what_is_unlearned_is_what_is_looked_at(tmp_path, monkeypatch):
    """A method that makes the weights zero leaves φ of a uniform guess on every row, of the original it does not."""
    import torch

    def zeroed(self, model, forget, retain, seed):
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        return model

    made = []
    monkeypatch.setattr(shadow_models.ShadowMaker, "_unlearn", zeroed)
    monkeypatch.setattr(command, "attack", lambda arguments, plan, maker, own: made.append(maker) or {})
    monkeypatch.setattr(command, "render_lira", lambda result: "")
    assert lira(tmp_path, config(tmp_path), "--shadows", "4", "--targets", "1") == 0
    arrays = made[0].load("shadow", 2)
    assert np.abs(arrays["unlearned"]).max() < 1e-6 < np.abs(arrays["original"]).max()  # two classes: φ is 0


def test_a_class_is_removed_from_every_second_model(tmp_path, monkeypatch):
    """Text, and a request for a class: what half of the models have and unlearn is the class, nothing else."""
    unlearned, made = [], []

    def noted(self, model, forget, retain, seed):
        unlearned.append(([int(self.rows[int(place)]["labels"]) for place in forget], len(retain)))
        return model

    monkeypatch.setattr(shadow_models.ShadowMaker, "_unlearn", noted)
    monkeypatch.setattr(command, "attack", lambda arguments, plan, maker, own: made.append(maker) or {})
    monkeypatch.setattr(command, "render_lira", lambda result: "")
    values = tiny.own_data(tmp_path, "text_classification", method="fine_tune", cache_dir=str(tmp_path / "cache"))
    values["original"]["num_train_epochs"] = 1
    values |= {"forget_classes": ["warm"]}
    values.pop("forget_fraction")
    assert lira(tmp_path, values, "--shadows", "4", "--targets", "2") == 0
    assert len(unlearned) == 3 and {retain for _, retain in unlearned} == {30}
    assert all(set(labels) == {1} and len(labels) == 30 for labels, _ in unlearned)
    arrays = [made[0].load("shadow", k) for k in range(2)]
    assert all(np.array_equal(each["original"], each["unlearned"]) and len(each["original"]) == 30 for each in arrays)
    assert not np.allclose(arrays[0]["original"], arrays[1]["original"])


def test_a_text_classifier_knows_the_rows_that_it_has(tmp_path, monkeypatch):
    """Labels are drawn at random, so that only memory knows them; a method that does next to nothing forgets none."""
    made = []
    monkeypatch.setattr(command, "attack", lambda *args: made.append(args[2]) or attack(*args))
    values = tiny.own_data(tmp_path, "text_classification", method="fine_tune", cache_dir=str(tmp_path / "cache"))
    values["original"]["num_train_epochs"] = 60
    assert lira(tmp_path, values | {"learning_rate": 1e-9}, "--shadows", "4", "--targets", "1") == 0
    (maker,) = made
    for role, k in [("shadow", k) for k in range(4)] + [("target", 0)]:
        phi, member = maker.load(role, k), maker.plan.division(role, k).member
        assert phi["original"][member].mean() > phi["original"][~member].mean() + 1
        assert np.abs(phi["unlearned"] - phi["original"]).max() < 1e-3
    attacks = json.loads((tmp_path / "out" / "lira.json").read_text())["attacks"]
    auc = {kind: found["pooled"]["auc"]["value"] for kind, found in attacks.items()}
    assert auc["fine_tune"] == pytest.approx(auc["original"], abs=0.02)


def test_language_models_are_adapters_on_one_frozen_base(tmp_path, monkeypatch):
    """Forget sets are unlearned from copies of the adapter alone, each copy starts from the same one, and no model is
    left when the next one is made."""
    from toy import tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    words, base = tokenizer(), tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **tiny.LLAMA)).save_pretrained(base)
    words.save_pretrained(base)
    places, alive, unlearn = [], [], shadow_models.ShadowMaker._unlearn
    train = stages.train_by_recipe

    def noted_train(arguments, data, *args):
        assert data.model is None and not any(model() is not None for model in alive)
        return train(arguments, data, *args)

    def noted(self, model, forget, retain, seed):
        alive.append(weakref.ref(model))
        weights = dict(model.named_parameters())
        before = {name: (p.data_ptr(), p.detach().clone()) for name, p in weights.items() if "lora" not in name}
        adapter = {name: p.detach().clone() for name, p in weights.items() if "lora" in name}
        places.append((before, adapter, id(model)))
        found = unlearn(self, model, forget, retain, seed)
        after = dict(found.named_parameters())
        assert all((after[name] == value).all() for name, (_, value) in before.items())
        changed = [name for name, value in adapter.items() if (after[name] != value).any()]
        assert changed and not any("reference" in name for name in changed)
        return found

    monkeypatch.setattr(shadow_models.ShadowMaker, "_unlearn", noted)
    monkeypatch.setattr(stages, "train_by_recipe", noted_train)
    adapter = {"model": str(base), "use_peft": True, "lora_r": 2, "num_train_epochs": 2, "learning_rate": 1e-2}
    values = tiny.own_data(tmp_path, "causal_lm", method="npo", cache_dir=str(tmp_path / "cache"))
    values |= {"original": adapter | {"batch_size": 16}}
    assert lira(tmp_path, values, "--shadows", "4", "--targets", "1") == 0
    (first, start, one), (second, again, other) = places[:2]
    assert one != other and all(first[name][0] == second[name][0] for name in first)
    assert all((start[name] == again[name]).all() for name in start)
    result = json.loads((tmp_path / "out" / "lira.json").read_text())
    assert result["klom"]["npo"]["rows"] == result["audited_rows"] > 10
    assert len(alive) == 10


def test_figures_are_not_added_to_a_run_of_other_rows(tmp_path, capsys):
    run = config(tmp_path, output_dir=str(tmp_path / "run"))
    run.pop("proxy_epochs")
    assert main(["train", "--config", tiny.write_config(tmp_path, run)]) == 0
    before, values = (tmp_path / "run" / "evidence.json").read_text(), config(tmp_path)
    add = ["--shadows", "4", "--targets", "2", "--add_to", str(tmp_path / "run"), "--dry_run", "true"]
    assert lira(tmp_path, dict(values), *add, "--seed", "7") == 0  # sets are drawn at random in any case
    changes = {"number of training rows": {"max_train_rows": 30}, "kind of request": {"forget_classes": ["warm"]}}
    for said, change in changes.items():
        other = values | change | ({"forget_fraction": None} if "forget_classes" in change else {})
        other = {key: value for key, value in other.items() if value is not None}
        assert lira(tmp_path, other, *add) == 2 and f"another {said}" in capsys.readouterr().err
    other = tiny.digits(tmp_path, method="fine_tune", cache_dir=str(tmp_path / "cache"))
    assert lira(tmp_path, other, *add) == 2 and "another data set" in capsys.readouterr().err
    assert (tmp_path / "run" / "evidence.json").read_text() == before


BAD = {
    "no recipe": ({"original": None, "model_name_or_path": "nowhere"}, [], "takes the recipe"),
    "few shadows": ({}, ["--shadows", "2"], "--shadows is 2; give 4 or more"),
    "no targets": ({}, ["--targets", "0"], "--targets is 0"),
    "classes": ({"forget_fraction": None, "forget_classes": ["warm"]}, ["--targets", "3"], "give an even number"),
    "no number": ({}, ["--shadows", SECRET[:0] + "many"], "invalid int value"),
    "no evidence": ({}, ["--add_to", "nowhere"], "cannot be read"),
    "resume": ({"resume_from_checkpoint": "last"}, [], "goes on by itself"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_made(tmp_path, capsys, case):
    changes, argv, said = BAD[case]
    values = {key: value for key, value in (config(tmp_path) | changes).items() if value is not None}
    assert lira(tmp_path, values, *argv) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and said in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_a_dry_run_says_what_would_be_made(tmp_path, capsys):
    assert lira(tmp_path, config(tmp_path), "--dry_run", "true") == 0
    out = capsys.readouterr().out
    assert "36 models, 0 of them done before" in out and not (tmp_path / "cache").exists()
