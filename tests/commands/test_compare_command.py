"""`hf-unlearn compare`: who takes part, that runs are those of `train`, that none is made twice, what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from guards import guard

from hf_unlearn.cli import main
from hf_unlearn.errors import NonFiniteLossError
from hf_unlearn.evaluation.protocols import PROTOCOLS
from hf_unlearn.report.contest_blocks import Contest
from hf_unlearn.report.schema import problems
from hf_unlearn.run import stages
from hf_unlearn.run.contest_seed import ContestSeed

SECRET = "xyzzy"
NAMES = ["do nothing", "fine_tune", "fine_tune tuned", "npo", "npo tuned", "ssd", "another twin"]
FOLDERS = ["another-twin", "do-nothing", "fine_tune", "fine_tune-tuned", "npo", "npo-tuned", "ssd"]
CONTEST = ("--methods", "npo", "ssd", "--seeds", "2", "--retrain", "2", "--tune", "2", "--num_train_epochs", "2")


def config(folder: Path, task: str = "text_classification", **more) -> dict:
    values = tiny.own_data(folder, task, **more)
    values["original"] |= {"num_train_epochs": 3}
    return {key: value for key, value in values.items() if key != "proxy_epochs" and value is not None}


def contest(folder: Path, values: dict, *argv: str) -> int:
    return main(["compare", "--config", tiny.write_config(folder, values), *argv])


def read(folder: Path) -> dict:
    found = json.loads((folder / "contest.json").read_text())
    assert problems(found, Contest) == []
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory, recipe_cache):
    """A whole contest, in one go. Gives its folder; the configuration lies in it, the result in `out`."""
    folder = tmp_path_factory.mktemp("contest")
    with pytest.MonkeyPatch.context() as patch:  # the folders that every test has
        patch.setenv("HF_UNLEARN_CACHE", str(recipe_cache))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        assert contest(folder, config(folder), *CONTEST) == 0
    return folder


def test_what_a_contest_leaves(made):
    found = read(made / "out")
    assert [entry["name"] for entry in found["entries"]] == NAMES
    assert sorted(path.name for path in (made / "out").iterdir()) == [
        "arguments.json", "contest.html", "contest.json", "seed_0", "seed_1",
    ]  # fmt: skip
    assert sorted(path.name for path in (made / "out" / "seed_1").iterdir()) == FOLDERS
    assert [seed["run"] for seed in found["seeds"]] == [42, 43]
    assert [seed["twins"] for seed in found["seeds"]] == [[1, 2], [1001, 1002]]
    by_name = {entry["name"]: entry for entry in found["entries"]}
    costs = {name: by_name[name]["figures"]["cost"]["mean"] for name in ("do nothing", "another twin")}
    assert costs == {"do nothing": 0, "another twin": 100}
    figure = by_name["npo"]["figures"]["distance"]
    assert len(figure["values"]) == 2 and figure["half_width"] is not None
    assert found["floor"]["distance"] is not None and any(entry["best"] for entry in found["entries"])
    page = (made / "out" / "contest.html").read_text()
    assert "npo tuned" in page and page.count("<svg") == 3 and "<script" not in page


def test_the_cost_of_a_search_is_that_of_all_rates(made):
    """Rows of every training, and the forget and validation rows that each model was valued by."""
    for seed in range(2):
        default, tuned = (
            json.loads((made / "out" / f"seed_{seed}" / name / "evidence.json").read_text())
            for name in ("npo", "npo-tuned")
        )
        tried, rows = tuned["contest"]["tried"], tuned["data"]["splits"]
        assert len(tried) == 2 and tried[0] == default["contest"]["tried"][0]
        assert tried[1]["learning_rate"] == pytest.approx(tried[0]["learning_rate"] / 10**0.5)
        valued = rows["forget"] + 12
        assert tuned["cost"]["unlearn_examples"] == 2 * (default["cost"]["unlearn_examples"] + valued)
        chosen = min(tried, key=lambda each: each["distance"])
        assert tuned["method"]["hyperparameters"]["learning_rate"] == chosen["learning_rate"]


@pytest.mark.parametrize(("seed", "method"), [(0, "npo"), (1, "ssd")])
def test_the_figures_are_those_of_train(tmp_path, made, seed, method):
    arguments = ["--seed", str(42 + seed), "--original_seed", str(1000 * seed), "--retrain", "2"]
    arguments += ["--num_train_epochs", "2", "--per_device_train_batch_size", "16"]  # the file's is for its own method
    arguments += ["--method", method, "--output_dir", str(tmp_path / "train")]
    assert main(["train", "--config", str(made / "config.yaml"), *arguments]) == 0
    alone = json.loads((tmp_path / "train" / "evidence.json").read_text())
    found = json.loads((made / "out" / f"seed_{seed}" / method / "evidence.json").read_text())
    for block in ("models", "gap", "floor", "judged", "seeds", "data", "attacks", "distributions"):
        assert found[block] == alone[block], block
    for unit in ("unlearn_examples", "retrain_examples", "steps"):
        assert found["cost"][unit] == alone["cost"][unit]
    if method == "npo":
        assert found["method"]["hyperparameters"] == alone["method"]["hyperparameters"]


def test_nothing_of_the_request_and_of_this_machine_is_written(tmp_path):
    data = tiny.text_folder(tmp_path / SECRET / "data")
    lines = (data / "train.csv").read_text().splitlines()
    lines[1:9] = [line.replace("train0", f"{SECRET}0") for line in lines[1:9]]
    (data / "train.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / f"{SECRET}.txt").write_text("\n".join(line.split(",")[-1] for line in lines[1:9]))
    request = {"forget_fraction": None, "forget_ids": str(tmp_path / f"{SECRET}.txt"), "id_column": "row_id"}
    values = config(tmp_path, **request) | {"dataset_name": str(data)}
    assert contest(tmp_path, values, "--methods", "fine_tune", "--retrain", "2", "--num_train_epochs", "1") == 0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text() and str(tmp_path) not in path.read_text(), path


def without_times(value):
    """A contest without seconds, and what is made of them."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key != "seconds"}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def test_a_stopped_contest_goes_on_and_ends_alike(tmp_path, made, monkeypatch, capsys):
    ran, trained = [], []
    run, train = ContestSeed.run, stages.unlearn

    def counted(self, entry, default):
        if len(ran) == 4:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append((self.k, entry))
        return run(self, entry, default)

    def counted_training(arguments, data, trainer):
        trained.append(trainer.method)
        return train(arguments, data, trainer)

    monkeypatch.setattr(ContestSeed, "run", counted)
    monkeypatch.setattr(stages, "unlearn", counted_training)
    values = config(tmp_path) | {"dataset_name": str(made / "data"), "output_dir": str(tmp_path / "out")}
    assert contest(tmp_path, values, *CONTEST) == 130
    assert ran == [(0, name) for name in NAMES[:4]] + ["stopped"]
    assert not (tmp_path / "out" / "contest.json").exists()
    capsys.readouterr()
    assert contest(tmp_path, values, *CONTEST) == 0
    assert ran[5:] == [(0, name) for name in NAMES[4:]] + [(1, name) for name in NAMES]
    assert trained == 2 * ["fine_tune", "fine_tune", "npo", "npo", "ssd"]  # the default of a search is not made again
    assert "contest    9 of 22: seed_0, npo tuned" in capsys.readouterr().out
    assert without_times(read(tmp_path / "out")) == without_times(read(made / "out"))
    before = (tmp_path / "out" / "contest.json").read_bytes()
    assert contest(tmp_path, values, *CONTEST) == 0
    assert len(trained) == 10 and (tmp_path / "out" / "contest.json").read_bytes() == before


OTHERS = {
    "another rate": ({}, ("--learning_rate", "0.5"), "with another --learning_rate of fine_tune"),
    "another recipe": ({}, ("--original_learning_rate", "0.5"), "with another --original_learning_rate"),
    "another request": ({"forget_fraction": 0.3}, (), "with another --forget_fraction"),
    "another search": ({}, ("--tune", "3"), "with --tune 2, and this one has 3"),
    "other twins": ({}, ("--retrain", "3"), "with another --retrain"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_contest_with_other_arguments_does_not_go_on(made, tmp_path, capsys, case):
    changes, argv, said = OTHERS[case]
    before = {path: path.read_bytes() for path in (made / "out").rglob("*") if path.is_file()}
    path = tiny.write_config(tmp_path, config(made) | changes)
    assert main(["compare", "--config", path, *CONTEST, *argv]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in (made / "out").rglob("*") if path.is_file()} == before


def test_a_dry_run_says_what_is_left_and_what_would_be_refused(made, capsys):
    path = tiny.write_config(made, config(made))
    assert main(["compare", "--config", path, *CONTEST, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "contest    0 of 22 steps are left: under each of 2 seeds" in out and "\ntime " not in out
    (line,) = [line for line in out.splitlines() if line.startswith("cost ")]
    entries = {entry["name"]: entry["figures"]["cost"]["mean"] for entry in read(made / "out")["entries"]}
    shares = sorted((entries[name], f"{name} {entries[name]:.0f} %") for name in ("fine_tune", "npo", "ssd"))
    assert line == "cost       of one retraining's examples: " + ", ".join(text for _, text in shares)
    assert main(["compare", "--config", path, *CONTEST, "--seeds", "3", "--dry_run"]) == 0
    said = "contest    11 of 33 steps are left: under each of 3 seeds an original, 3 twins and 7 entries"
    out = capsys.readouterr().out
    assert said in out and re.search(r"^time       about .+: originals .+, twins .+, entries .+, scoring ", out, re.M)
    assert main(["compare", "--config", path, *CONTEST, "--retrain", "3", "--dry_run"]) == 2
    assert "with another --retrain" in capsys.readouterr().err


def test_more_seeds_and_methods_join_a_contest_and_other_rows_do_not(made, tmp_path, capsys, monkeypatch):
    shutil.copytree(made / "out", tmp_path / "out")
    values = config(made, output_dir=str(tmp_path / "out"))
    ran, run = [], ContestSeed.run
    monkeypatch.setattr(ContestSeed, "run", lambda self, *given: ran.append(given[0]) or run(self, *given))
    more = [*CONTEST[:3], "simnpo", *CONTEST[3:]]
    assert contest(tmp_path, values, *more) == 0
    assert ran == 2 * ["simnpo", "simnpo tuned"]
    rows = made / "data" / "train.csv"
    text = rows.read_text()
    rows.write_text(text.replace("red", "rose"))
    try:
        assert contest(tmp_path, values, *more) == 2
        assert "the data has changed" in capsys.readouterr().err
    finally:
        rows.write_text(text)
    (tmp_path / "out" / "seed_0" / "npo" / "evidence.json").write_text("{}")
    assert contest(tmp_path, values, *more) == 2
    assert "remove it, and it is made again" in capsys.readouterr().err


def test_a_search_sees_neither_test_rows_nor_twins(tmp_path, monkeypatch):
    """They cannot be read while a candidate is trained and valued; what is chosen is what validation rows prefer."""
    train, value, seen = stages.unlearn, ContestSeed._value, []

    def guarded_training(arguments, data, trainer):
        trainer.splits = guard(trainer.splits)
        return train(arguments, data, trainer)

    def guarded_value(self, *given):
        splits, twins = self.data.splits, self.twins
        self.data.splits, self.twins = guard(splits), None
        tried = value(self, *given) | {"distance": [3.0, 1.0, 2.0][len(seen) % 3]}
        self.data.splits, self.twins = splits, twins
        seen.append(tried["learning_rate"])
        return tried

    monkeypatch.setattr(stages, "unlearn", guarded_training)
    monkeypatch.setattr(ContestSeed, "_value", guarded_value)
    argv = ("--methods", "fine_tune", "--retrain", "2", "--tune", "3", "--num_train_epochs", "1")
    assert contest(tmp_path, config(tmp_path), *argv) == 0
    evidence = json.loads((tmp_path / "out" / "seed_0" / "fine_tune-tuned" / "evidence.json").read_text())
    assert len(seen) == 3 and evidence["method"]["hyperparameters"]["learning_rate"] == seen[1]
    assert [tried["distance"] for tried in evidence["contest"]["tried"]] == [3.0, 1.0, 2.0]


def test_who_breaks_down_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    train, tries = stages.unlearn, []

    def breaks(arguments, data, trainer):
        if trainer.method == "npo":
            tries.append(trainer)
            raise NonFiniteLossError("the loss or its gradient is not finite at step 1")
        return train(arguments, data, trainer)

    monkeypatch.setattr(stages, "unlearn", breaks)
    argv = ("--methods", "npo", "--retrain", "2", "--num_train_epochs", "1", "--tune", "2")
    assert contest(tmp_path, config(tmp_path), *argv) == 0
    found = {entry["name"]: entry for entry in read(tmp_path / "out")["entries"]}
    assert found["npo"]["failed"] == ["seed 1: the loss or its gradient is not finite at step 1"]
    assert found["npo tuned"]["failed"] == ["seed 1: no learning rate of the search gave a model"]
    assert found["npo"]["figures"]["distance"] is None and found["fine_tune"]["figures"]["distance"] is not None
    assert "npo broke down: seed 1" in capsys.readouterr().out
    assert contest(tmp_path, config(tmp_path), *argv) == 0 and len(tries) == 2


def test_blocks_of_the_file(tmp_path):
    """A method under another name, and arguments for one method; what the file says of training is for its own."""
    blocks = {"npo": {"beta": 0.3, "num_train_epochs": 1}, "gentle": {"method": "npo", "learning_rate": 1e-6}}
    values = config(tmp_path, method="simnpo", beta=2.0, num_train_epochs=1, method_arguments=blocks)
    assert contest(tmp_path, values, "--methods", "npo", "gentle", "simnpo", "--retrain", "2") == 0
    found = {entry["name"]: entry["method"] for entry in read(tmp_path / "out")["entries"]}
    settings = {name: method["hyperparameters"] for name, method in found.items()}
    assert settings["npo"]["beta"] == 0.3 and settings["gentle"]["beta"] == 0.1 and settings["simnpo"]["beta"] == 2.0
    assert settings["gentle"]["learning_rate"] == 1e-6 and found["gentle"]["name"] == "npo"
    assert settings["gentle"]["num_train_epochs"] == pytest.approx(10 * 12 / 48)  # the method's own
    assert settings["fine_tune"]["num_train_epochs"] == 3 and settings["simnpo"]["num_train_epochs"] == 1


def test_a_given_original_and_answers(tmp_path):
    values = config(tmp_path, "causal_lm")
    run = tiny.write_config(tmp_path, values | {"output_dir": str(tmp_path / "original")})
    assert main(["train", "--config", run, "--method", "fine_tune", "--learning_rate", "1e-9"]) == 0
    values |= {"model_name_or_path": str(tmp_path / "original")}
    argv = ("--methods", "npo", "--retrain", "2", "--num_train_epochs", "1", "--generate", "2")
    assert contest(tmp_path, values, *argv) == 0
    assert any("token accuracy" in note for note in read(tmp_path / "out")["notes"])
    found = {entry["name"]: entry["figures"] for entry in read(tmp_path / "out")["entries"]}
    assert all(figures["forgotten_rouge"] is not None for figures in found.values())
    runs = {
        name: json.loads((tmp_path / "out" / "seed_0" / name / "evidence.json").read_text())
        for name in ("do-nothing", "another-twin")
    }
    said = {name: run["said_instead"] for name, run in runs.items()}
    assert said["do-nothing"]["unlearned"] == said["do-nothing"]["original"] != said["another-twin"]["unlearned"]
    assert said["another-twin"]["each"] == said["do-nothing"]["each"] and len(said["do-nothing"]["each"]) == 2
    assert all(figures["said_instead"] is not None for figures in found.values())
    evidence = {name: run["answers"]["figures"] for name, run in runs.items()}
    for kind, figures in evidence["do-nothing"].items():
        assert all(values["unlearned"] == values["original"] for values in figures.values()), kind
    assert evidence["another-twin"]["kept"]["rouge"]["twins"] == evidence["do-nothing"]["kept"]["rouge"]["twins"]


def test_every_contestant_is_disturbed_beside_the_twins(tmp_path, monkeypatch, capsys):
    short = replace(PROTOCOLS["ours"], steps=2)
    monkeypatch.setitem(PROTOCOLS, "ours", short)
    argv = ("--methods", "ssd", "--retrain", "2", "--num_train_epochs", "1")
    assert contest(tmp_path, config(tmp_path), *argv, "--stress") == 0
    cells = {
        name: json.loads((tmp_path / "out" / "seed_0" / name / "evidence.json").read_text())["stress"]["cells"]
        for name in ("do-nothing", "another-twin", "ssd")
    }
    twins = {}
    for name, grid in cells.items():
        found = [figure for kinds in grid.values() for kind in kinds.values() for figure in kind.values()]
        twins[name] = [figure["twins"] for figure in found]
        if name == "do-nothing":
            assert all(figure["unlearned"] == figure["original"] for figure in found)
        if name == "another-twin":  # a contestant, and none of the twins that it is held against
            losses = [kinds["untouched"]["forget_loss"] for kinds in grid.values()]
            assert all(loss["unlearned"] not in (loss["twins"]["lowest"], loss["twins"]["highest"]) for loss in losses)
    assert twins["do-nothing"] == twins["another-twin"] == twins["ssd"]
    entries = {entry["name"]: entry for entry in read(tmp_path / "out")["entries"]}
    loss = entries["ssd"]["durability"]["nf4"]["few_forgotten_rows"]["forget_loss"]
    assert loss["unlearned"]["mean"] == cells["ssd"]["nf4"]["few_forgotten_rows"]["forget_loss"]["unlearned"]
    assert "Does it come back?" in (tmp_path / "out" / "contest.html").read_text()
    assert contest(tmp_path, config(tmp_path), *argv) == 2
    assert "another --stress" in capsys.readouterr().err


def test_all_takes_in_whom_the_task_lets(tmp_path, capsys):
    """Of texts with classes and a random request: no method for whole classes, and none that replaces answers."""
    values = config(tmp_path)
    assert contest(tmp_path, values, "--methods", "all", "--retrain", "2", "--dry_run") == 0
    out = capsys.readouterr().out
    (names,) = [line.split()[1:] for line in out.splitlines() if line.startswith("methods ")]
    taken = {name.strip(",") for name in names}
    assert {"fine_tune", "nabla_tau", "salun", "npo", "ssd", "scrub"} <= taken
    assert not taken & {"unsir", "altpo", "idk_dpo"} and "left out   unsir: forgets whole" in out
    assert "left out   idk_nll, idk_dpo, altpo: replaces answers" in out
    assert not (tmp_path / "out").exists()


RETRAIN = ("--retrain", "2")
BAD = {
    "no methods": ({}, [*RETRAIN], "no --methods"),
    "unknown": ({}, ["--methods", "npoo", *RETRAIN], "did you mean npo?"),
    "all and one": ({}, ["--methods", "all", "npo", *RETRAIN], "all takes everybody in"),
    "not for this task": ({}, ["--methods", "altpo", *RETRAIN], "these rows have none"),
    "not for this request": ({}, ["--methods", "unsir", *RETRAIN], "forgets whole classes"),
    "no seeds": ({}, ["--methods", "npo", *RETRAIN, "--seeds", "0"], "--seeds is 0"),
    "seeds without twins": ({}, ["--methods", "npo", "--seeds", "2"], "--retrain is 0"),
    "one twin": ({}, ["--methods", "npo", "--retrain", "1"], "--retrain is 1"),
    "one rate": ({}, ["--methods", "npo", *RETRAIN, "--tune", "1"], "--tune is 1"),
    "one original": ({"model_name_or_path": "DATA"}, ["--methods", "npo", *RETRAIN, "--seeds", "2"], "is one: leave"),
    "no recipe": ({"original": None, "model_name_or_path": "DATA"}, ["--methods", "npo"], "takes the recipe"),
    "method": ({}, ["--method", "npo", *RETRAIN], "compare takes --methods"),
    "resume": ({}, ["--methods", "npo", *RETRAIN, "--resume_from_checkpoint", "last"], "goes on by itself"),
    "push": ({}, ["--methods", "npo", *RETRAIN, "--push_to_hub"], "leaves no model"),
    "a method's argument": ({}, ["--methods", "npo", *RETRAIN, "--beta", "1"], "under method_arguments"),
    "a block": ({"method_arguments": 3}, ["--methods", "npo", *RETRAIN], "must hold a block"),
    "an unknown key": ({"method_arguments": {"npo": {"bta": 1}}}, ["--methods", "npo", *RETRAIN], "mean beta?"),
    "a key of all": ({"method_arguments": {"npo": {"seed": 1}}}, ["--methods", "npo", *RETRAIN], "it holds for all"),
    "rows without labels": ({"label_column": "colour"}, ["--methods", "npo", *RETRAIN], "label"),
    "something else": ({"output_dir": "DATA"}, ["--methods", "npo", *RETRAIN], "holds no contest"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_trained(tmp_path, capsys, monkeypatch, case):
    import transformers

    def trains(self, *given, **more):
        raise AssertionError("a training began")

    monkeypatch.setattr(transformers.Trainer, "train", trains)
    changes, argv, said = BAD[case]
    changes = {key: str(tmp_path / "data") if value == "DATA" else value for key, value in changes.items()}
    values = {key: value for key, value in (config(tmp_path) | changes).items() if value is not None}
    path = tiny.write_config(tmp_path, values)
    before = sorted(tmp_path.rglob("*"))
    assert main(["compare", "--config", path, *argv]) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and said in err, err
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_that_are_missing(tmp_path, capsys):
    values = config(tmp_path)
    path = tmp_path / "data" / "train.csv"
    path.write_text(path.read_text().replace(",warm,", ",,", 1))
    assert contest(tmp_path, values, "--methods", "npo", *RETRAIN) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and "label" in err and not (tmp_path / "out").exists()
