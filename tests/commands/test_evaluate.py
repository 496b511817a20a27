"""`hf-unlearn evaluate`: evidence for models that were made elsewhere."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import tiny
from transformers import LlamaConfig, LlamaForCausalLM

from hf_unlearn.cli import main
from hf_unlearn.report.evidence import validate
from hf_unlearn.train import main as train

SECRET = "xyzzy"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`original`, `out` and `adapter` (both unlearned from it) and `data`, of one text classification."""
    folder = tmp_path_factory.mktemp("models")
    config = tiny.own_data(folder, "text_classification", method="fine_tune", output_dir=str(folder / "original"))
    config["cache_dir"] = str(folder / "cache")
    del config["proxy_epochs"]
    assert train(["--config", tiny.write_config(folder, config)]) == 0
    unlearn = given(folder, folder / "out", method="fine_tune", learning_rate=1e-2)
    assert train(["--config", tiny.write_config(folder, unlearn)]) == 0
    adapter = unlearn | {"output_dir": str(folder / "adapter"), "use_peft": True, "save_adapter": True}
    assert train(["--config", tiny.write_config(folder, adapter)]) == 0
    return folder


def given(models: Path, output: Path, **more) -> dict:
    config = {
        "dataset_name": str(models / "data"), "task": "text_classification", "output_dir": str(output),
        "model_name_or_path": str(models / "original"), "forget_fraction": 0.2, "use_cpu": True,
        "per_device_train_batch_size": 8, "num_train_epochs": 1,
    }  # fmt: skip
    return {key: value for key, value in (config | more).items() if value is not None}


def evaluate(folder: Path, config: dict, *argv: str) -> dict:
    assert main(["evaluate", "--config", tiny.write_config(folder, config), "--no_classifier_attacks", *argv]) == 0
    return json.loads((Path(config["output_dir"]) / "evidence.json").read_text())


@pytest.mark.parametrize("kind", ["out", "adapter"])
def test_the_evidence_is_that_of_the_run_that_made_the_model(tmp_path, models, kind):
    """The same rows, original and result: the figures of the training run, to the last digit that files keep."""
    argv = ["--unlearned_model", str(models / kind)]
    references = [str(models / "original"), str(models / "adapter")]
    evidence = evaluate(tmp_path, given(models, tmp_path / "judged"), *argv)
    made = json.loads((models / kind / "evidence.json").read_text())
    assert validate(evidence) == [] and evidence["models"]["retrained"] is None
    for name in ("original", "unlearned"):
        for part in ("accuracy", "loss", "membership"):
            assert evidence["models"][name][part] == pytest.approx(made["models"][name][part], abs=1e-5)
    for block in ("splits", "request"):
        assert evidence["data"][block] == made["data"][block]
    assert (evidence["model"]["peft"] is None) == (kind == "out")
    assert evidence["model"]["parameters"] == made["model"]["parameters"]
    assert set(p.name for p in (tmp_path / "judged").iterdir()) == {"evidence.json", "report.html"}
    text = (tmp_path / "judged" / "report.html").read_text() + json.dumps(evidence)
    assert str(models) not in text and references[0] not in text


def test_references_are_the_yardstick(tmp_path, models):
    config = given(models, tmp_path / "judged", reference_model=[str(models / "adapter")])
    evidence = evaluate(tmp_path, config, "--unlearned_model", str(models / "out"))
    assert evidence["models"]["retrained"]["twins"] == 1 and evidence["gap"]["average"] is not None
    assert any("their makers' word" in note for note in evidence["notes"])


def test_stress_goes_into_the_evidence_and_its_report(tmp_path, models, capsys):
    config = given(models, tmp_path / "judged", reference_model=[str(models / "adapter")])
    evidence = evaluate(tmp_path, config, "--unlearned_model", str(models / "out"), "--stress")
    cells = evidence["stress"]["cells"]
    few = cells["as_saved"]["few_forgotten_rows"]["forget_loss"]
    assert few["unlearned"] != cells["as_saved"]["untouched"]["forget_loss"]["unlearned"] and few["twins"]["mean"]
    assert few["original"] is not None and few["difference"] == pytest.approx(few["unlearned"] - few["twins"]["mean"])
    assert evidence["stress"]["protocol"]["name"] == "ours" and "nf4" in cells
    page = (tmp_path / "judged" / "report.html").read_text()
    assert "Does it come back?" in page and "rgba(" in page and "4 bits (NF4)" in page
    assert "Whether the forgotten rows come back" not in page
    capsys.readouterr()
    assert main(["report", str(tmp_path / "judged")]) == 0
    assert "relearning: 1 forgotten rows" in capsys.readouterr().out


def test_train_disturbs_the_original_as_it_was(tmp_path, models, capsys):
    """The trainer has changed the model that it was given; the grid has the one that must forget."""
    config = given(models, tmp_path / "new", method="fine_tune", learning_rate=1e-2)
    argv = ["--stress", "--stress_protocol", "wmdp", "--reference_model", str(models / "adapter")]
    assert train(["--config", tiny.write_config(tmp_path, config), *argv]) == 0
    out = capsys.readouterr().out
    assert "Does it come back?" in out and "Protocol wmdp: 15 steps of at most 32 rows" in out
    made = json.loads((tmp_path / "new" / "evidence.json").read_text())
    untouched = made["stress"]["cells"]["as_saved"]["untouched"]["forget_loss"]
    judged = evaluate(tmp_path, config | {"output_dir": str(tmp_path / "judged")}, *argv,
                      "--unlearned_model", str(tmp_path / "new"))  # fmt: skip
    again = judged["stress"]["cells"]["as_saved"]["untouched"]["forget_loss"]
    for name in ("original", "unlearned"):
        assert untouched[name] == pytest.approx(again[name], abs=1e-5)
    assert untouched["original"] != pytest.approx(untouched["unlearned"], rel=1e-3)


def test_language_models(tmp_path):
    """The language block, with wrong answers from a file of their own; its scores are those of the other figures."""
    config = tiny.own_data(tmp_path, "causal_lm", method="fine_tune", output_dir=str(tmp_path / "made"))
    config |= {"cache_dir": str(tmp_path / "cache"), "num_train_epochs": 1}
    config["original"]["num_train_epochs"] = 2
    del config["proxy_epochs"]
    assert train(["--config", tiny.write_config(tmp_path, config)]) == 0
    with open(tmp_path / "data" / "train.csv") as file:
        questions = [row["question"] for row in csv.DictReader(file)]
    wrong = [{"question": q, "answer": "red owl", "perturbed_answer": ["old cat", "new dog"]} for q in questions]
    (tmp_path / "wrong.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    argv = ["--unlearned_model", str(tmp_path / "made"), "--perturbed_data", str(tmp_path / "wrong.jsonl")]
    evidence = evaluate(tmp_path, config | {"output_dir": str(tmp_path / "judged")}, *argv, "--max_new_tokens", "4")
    made = json.loads((tmp_path / "made" / "evidence.json").read_text())
    assert evidence["models"]["unlearned"]["loss"] == pytest.approx(made["models"]["unlearned"]["loss"], abs=1e-5)
    language = evidence["language"]
    assert language["figures"]["forget_truth_ratio"]["unlearned"] is not None
    assert language["attacks"]["loss"]["original"]["value"] == pytest.approx(
        evidence["models"]["original"]["membership"]["loss_auc"]
    )
    text = (tmp_path / "judged" / "report.html").read_text()
    assert "<h2>Language model" in text and not any(q in text + json.dumps(evidence) for q in questions)


def test_what_is_said_instead_is_what_train_found(tmp_path, capsys):
    """Twins one by one, and all at once; the words themselves stay where they are."""
    config = tiny.own_data(tmp_path, "causal_lm", method="fine_tune", retrain=2, num_train_epochs=1)
    config |= {"cache_dir": str(tmp_path / "cache")}
    config["original"] |= {"num_train_epochs": 3}
    del config["proxy_epochs"]
    assert train(["--config", tiny.write_config(tmp_path, config)]) == 0
    assert "said instead (KL, nats/token)" in capsys.readouterr().out
    argv = ("--unlearned_model", str(tmp_path / "out"), "--max_new_tokens", "0")
    judged = evaluate(tmp_path, config | {"output_dir": str(tmp_path / "judged")}, *argv)["said_instead"]
    made = json.loads((tmp_path / "out" / "evidence.json").read_text())["said_instead"]
    assert made["tokens"] == made["of"] == 12 * 4 and len(made["each"]) == 2  # three words, and the end
    for name in ("original", "unlearned", "twins"):
        assert judged[name] == pytest.approx(made[name], rel=1e-3) and made[name] > 1e-3
    assert {type(value) for value in made.values()} == {int, float, list, dict}


def test_tofu_brings_its_own_wrong_answers_and_definitions(tmp_path):
    """By a folder of its files; of a pretrained base also real authors and world facts."""
    config = tiny.own_data(tmp_path, "causal_lm", dataset_name=str(tiny.tofu_folder(tmp_path / "tofu")), retrain=2)
    config |= {"cache_dir": str(tmp_path / "cache"), "forget_split": "forget10", "forget_fraction": None}
    config |= {"task": None, "question_column": None, "answer_column": None, "output_dir": str(tmp_path / "judged")}
    config["original"] |= {"num_train_epochs": 1}
    LlamaForCausalLM(LlamaConfig(**tiny.LLAMA, vocab_size=len(tiny.tokenizer()))).save_pretrained(tmp_path / "made")
    tiny.processor_folder(tmp_path / "made", "causal_lm")
    config = {key: value for key, value in config.items() if value is not None}
    argv = ["--unlearned_model", str(tmp_path / "made"), "--max_new_tokens", "2"]
    evidence = evaluate(tmp_path, config, *argv)
    language, figures = evidence["language"], evidence["language"]["figures"]
    assert language["definition"] == "tofu" and evidence["data"]["splits"]["forget"] == 40
    assert None not in figures["forget_truth_ratio"].values() and figures["model_utility"]["twins"] is not None
    assert "real_authors_truth_ratio" not in figures
    assert [len(language["forget_quality"][name]["each"]) for name in ("original", "unlearned", "twins")] == [2, 2, 1]
    config |= {"original_model": str(tmp_path / "made"), "output_dir": str(tmp_path / "again")}
    config["original"] = {"num_train_epochs": 1, "batch_size": 16}
    figures = evaluate(tmp_path, config | {"retrain": 0}, *argv)["language"]["figures"]
    assert figures["real_authors_truth_ratio"]["unlearned"] is not None


def test_without_an_original_nothing_is_guessed(tmp_path, capsys, models):
    config = given(models, tmp_path / "judged", model_name_or_path=None)
    evidence = evaluate(tmp_path, config, "--unlearned_model", str(models / "out"))
    assert evidence["models"]["original"] is None and evidence["gap"]["average"] is None
    out = capsys.readouterr().out
    assert "No original was given" in out.replace("\n", " ") and "No retrained twin" in out.replace("\n", " ")


def test_original_and_twins_of_the_recipe(tmp_path, models):
    """What `train` unlearned from the recipe's original is judged against that, from the cache."""
    config = tiny.own_data(tmp_path, "text_classification", retrain=1) | {
        "dataset_name": str(models / "data"), "cache_dir": str(models / "cache"),
    }  # fmt: skip
    evidence = evaluate(tmp_path, config, "--unlearned_model", str(models / "out"))
    made = json.loads((models / "original" / "evidence.json").read_text())
    assert evidence["models"]["original"]["loss"] == pytest.approx(made["models"]["original"]["loss"], abs=1e-5)
    assert evidence["models"]["retrained"]["twins"] == 1
    assert any("made by the recipe" in note for note in evidence["notes"])


BAD = {
    "no model": ([], {}, "no --unlearned_model"),
    "no such model": (["--unlearned_model", "nowhere"], {}, "model 'nowhere' cannot be loaded"),
    "the original": (["--unlearned_model", "{models}/original"], {}, "is the original"),
    "as reference": (["--unlearned_model", "{models}/out", "--reference_model", "{models}/../{folder}/out"], {},
                     "names the unlearned model"),
    "original as reference": (["--unlearned_model", "{models}/out", "--reference_model", "{models}/original"], {},
                              "names the original"),
    "no data": (["--unlearned_model", "{models}/out"], {"dataset_name": None}, "no --dataset_name"),
    "no request": (["--unlearned_model", "{models}/out"], {"forget_fraction": None}, "nothing to forget"),
    "wrong answers for a classifier": (["--unlearned_model", "{models}/out", "--perturbed_data", "x.json"], {},
                                       "is for tasks that generate"),
    "a protocol without stress": (["--unlearned_model", "{models}/out", "--stress_protocol", "muse"], {},
                                  "--stress_protocol muse goes with --stress"),
    "an unknown protocol": (["--unlearned_model", "{models}/out", "--stress", "--stress_protocol", "mine"],
                             {}, "muse"),
    "typo": (["--unlearned_model", "{models}/out", "--shadow", "3"], {}, "unknown argument --shadow"),
    "a request that matches nothing": (["--unlearned_model", "{models}/out"],
                                       {"forget_fraction": None, "forget_where": [f"text={SECRET}"]}, "match no"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, models, case):
    argv, changes, said = BAD[case]
    argv = [word.format(models=models, folder=models.name) for word in argv]
    path = tiny.write_config(tmp_path, given(models, tmp_path / "judged", **changes))
    capsys.readouterr()
    assert main(["evaluate", "--config", path, *argv]) == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and said in err and SECRET not in err
    assert sorted(tmp_path.iterdir()) == [Path(path)]


def test_help_lists_its_own_arguments(capsys):
    for command, own in (("evaluate", "--unlearned_model"), ("lira", "--shadows")):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0 and own in capsys.readouterr().out


def test_it_divides_the_rows_as_the_run_that_made_the_model_did(tmp_path, models, capsys):
    """Without validation rows of their own, half of the test rows serve; which half is in the model's evidence."""
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        (data / f"{split}.csv").write_text((models / "data" / f"{split}.csv").read_text())
    config = given(models, tmp_path / "made", method="fine_tune", dataset_name=str(data))
    assert train(["--config", tiny.write_config(tmp_path, config), "--split_seed", "5"]) == 0
    made = json.loads((tmp_path / "made" / "evidence.json").read_text())
    judged, argv = config | {"output_dir": str(tmp_path / "judged")}, ["--unlearned_model", str(tmp_path / "made")]
    evidence = evaluate(tmp_path, judged, *argv)
    assert evidence["data"]["division"] == made["data"]["division"] and made["data"]["division"]["seed"] == 5
    for figures in ("loss", "membership"):
        assert evidence["models"]["unlearned"][figures] == pytest.approx(
            made["models"]["unlearned"][figures], abs=1e-5
        )
    path = tiny.write_config(tmp_path, judged | {"output_dir": str(tmp_path / "other")})
    for more, said in ((["--split_seed", "0"], "made with 5"), (["--seed", "3"], "say --seed 42")):
        assert main(["evaluate", "--config", path, *argv, *more]) == 2
        assert said in capsys.readouterr().err
    other = [*argv, "--forget_where", "row_id=train001"]
    path = tiny.write_config(tmp_path, {k: v for k, v in judged.items() if k != "forget_fraction"})
    assert main(["evaluate", "--config", path, *other, "--output_dir", str(tmp_path / "other")]) == 2
    assert "other rows than the model unlearned" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_a_tokenizer_that_reads_rows_otherwise_is_refused(tmp_path, models, capsys):
    """An unlearned model from elsewhere may bring its own; without one, the original's is its own."""
    other = tmp_path / "other"
    shutil.copytree(models / "out", other, ignore=shutil.ignore_patterns("evidence.json"))
    config = given(models, tmp_path / "judged")
    argv = ["evaluate", "--config", tiny.write_config(tmp_path, config), "--unlearned_model", str(other), "--dry_run"]
    assert main(argv) == 0
    read = json.loads((other / "tokenizer.json").read_text())
    words = list(read["model"]["vocab"])
    read["model"]["vocab"] = dict(zip(words, [0, 1, 2, *range(len(words) - 1, 2, -1)], strict=True))
    (other / "tokenizer.json").write_text(json.dumps(read))
    capsys.readouterr()
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert f"the tokenizer beside {other} reads rows otherwise" in err and len(err.splitlines()) == 1
    assert main([*argv, "--processor_name_or_path", str(models / "original")]) == 0
    for file in other.glob("*token*"):
        file.unlink()
    assert main(argv) == 0


def test_a_model_with_the_classes_in_another_order_is_named(tmp_path, models, capsys):
    other = tmp_path / "other"
    shutil.copytree(models / "out", other, ignore=shutil.ignore_patterns("evidence.json"))
    read = json.loads((other / "config.json").read_text())
    names = [read["id2label"][str(place)] for place in range(len(read["id2label"]))]
    read["id2label"] = {str(place): name for place, name in enumerate(names[::-1])}
    read["label2id"] = {name: place for place, name in enumerate(names[::-1])}
    (other / "config.json").write_text(json.dumps(read))
    config = given(models, tmp_path / "judged")
    argv = ["evaluate", "--config", tiny.write_config(tmp_path, config), "--unlearned_model", str(other), "--dry_run"]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert f"{other}: the model has the data's classes in another order" in err and ", ".join(names) in err
    argv[-2] = str(models / "out")
    assert main(argv) == 0
    for command in (argv, ["train", *argv[1:3], "--dry_run"]):
        assert main([*command, "--reference_model", str(other)]) == 2
        assert f"{other}: the model has the data's classes in another order" in capsys.readouterr().err
