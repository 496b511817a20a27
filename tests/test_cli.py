"""Bad inputs: one line on stderr, status 2, nothing written, and nothing of the request in what is printed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny

from hf_unlearn import cli
from hf_unlearn.data import scored_rows
from hf_unlearn.methods.nabla_tau import NablaTauConfig
from hf_unlearn.progress import say
from hf_unlearn.report.evidence import validate
from hf_unlearn.run.arguments import DataArguments
from hf_unlearn.run.parsing import _build_parser
from hf_unlearn.run.short_help import EVERYDAY
from hf_unlearn.train import main

SECRET = "xyzzy"  # stands in every value of a request and in every text of a row that must not be printed


def refused(capsys, folder: Path, config: dict, *argv: str, status: int = 2) -> str:
    """Run the command, expect it to refuse, and return its one line on stderr."""
    before = sorted(folder.rglob("*"))
    path = tiny.write_config(folder, config)
    assert main(["--config", path, *argv]) == status
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and err.startswith("hf-unlearn: "), err
    assert "Traceback" not in err and SECRET not in err
    assert set(folder.rglob("*")) - set(before) <= {Path(path)}
    return err


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Data and a trained original for text classification, made once."""
    folder = tmp_path_factory.mktemp("given")
    config = tiny.own_data(folder, "text_classification", method="fine_tune")
    del config["proxy_epochs"]
    assert main(["--config", tiny.write_config(folder, config)]) == 0
    return folder


def given(models, folder: Path, **more) -> dict:
    config = {
        "dataset_name": str(models / "data"), "task": "text_classification", "output_dir": str(folder / "new" / "out"),
        "model_name_or_path": str(models / "out"), "forget_fraction": 0.2,
    }  # fmt: skip
    return {k: v for k, v in (config | tiny.QUICK | more).items() if v is not None}


REQUESTS = {
    "unknown class": ({"forget_classes": [SECRET]}, "1 of 1 --forget_classes are unknown"),
    "fraction 0": ({"forget_fraction": 0}, "between 0 and 1"),
    "fraction 1": ({"forget_fraction": 1}, "between 0 and 1"),
    "fraction nan": ({"forget_fraction": float("nan")}, "between 0 and 1"),
    "no request": ({}, "nothing to forget"),
    "two requests": ({"forget_fraction": 0.1, "forget_where": [f"label={SECRET}"]}, "2 forget requests"),
    "no row": ({"forget_where": [f"text={SECRET}"]}, "1 of 1 --forget_where conditions match no training row"),
    "all rows": ({"forget_classes": ["warm", "cold"]}, "takes all"),
    "a whole class": ({"forget_where": ["label=warm"]}, "name those with --forget_classes, alone"),
    "missing column": ({"forget_where": [f"colour={SECRET}"]}, "the columns are: text, "),
    "no ids file": (
        {"forget_ids": "nowhere.txt", "id_column": "row_id"},
        "--forget_ids: there is no file nowhere.txt",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests_that_are_refused(capsys, tmp_path, models, case):
    request, message = REQUESTS[case]
    assert message in refused(capsys, tmp_path, given(models, tmp_path, forget_fraction=None) | request)


def test_ids_that_are_not_in_the_data(capsys, tmp_path, models):
    (tmp_path / "ids.txt").write_text(f"train000\ntrain001\n{SECRET}1\n{SECRET}2\n")
    config = given(models, tmp_path, forget_fraction=None, forget_ids=str(tmp_path / "ids.txt"), id_column="row_id")
    assert "2 of 4 ids" in refused(capsys, tmp_path, config)
    assert "the columns are" in refused(capsys, tmp_path, config | {"id_column": "number"})


DATA = {
    "no data": ({"dataset_name": None}, "no --dataset_name"),
    "no such folder": ({"dataset_name": "./nowhere"}, "no file or folder"),
    "no such data set": ({"dataset_name": "nobody/nothing"}, "nobody/nothing"),
    "unknown task": ({"task": "translation"}, "there are image_classification"),
    "label column": ({"label_column": "colour"}, "it has text, label, question, answer, row_id"),
    "text column": ({"text_column": "colour"}, "it has text, label, question, answer, row_id"),
    "no such split": ({"validation_split": "dev"}, "the splits are"),
    "validation is train": ({"validation_split": "train"}, "must be different splits"),
    "no such model": ({"model_name_or_path": "./nowhere"}, "./nowhere"),
    "no such reference": ({"reference_model": ["./nowhere"]}, "./nowhere"),
    "no such base": ({"original": {"model": "./nowhere"}, "retrain": 1}, "./nowhere"),
    "no such processor": ({"processor_name_or_path": "./nowhere"}, "./nowhere"),
    "no model": ({"model_name_or_path": None}, "no model"),
    "prompts for a classifier": ({"prompt_template": "{question}"}, "tasks with prompts"),
    "retrain without recipe": ({"retrain": 2}, "--retrain needs the recipe"),
    "negative twins": ({"retrain": -1}, "--retrain is -1"),
    "LoRA targets": ({"use_peft": True, "lora_target_modules": ["nothing"]}, "linear layers are"),
    "LoRA modules": ({"use_peft": True, "lora_modules_to_save": ["nothing"]}, "the model consists of"),
    "no adapter to save": ({"save_adapter": True}, "--save_adapter"),
    "no checkpoint": ({"resume_from_checkpoint": "last"}, "no checkpoint there"),
    "no such checkpoint": ({"resume_from_checkpoint": "nowhere/checkpoint-3"}, "no checkpoint there"),
    "unknown tracker": ({"report_to": ["carrier_pigeon"]}, "carrier_pigeon is unknown"),
    "tracker not installed": ({"report_to": ["comet_ml"]}, "pip install comet_ml"),
    "pushing offline": ({"push_to_hub": True}, "--push_to_hub: the Hub is switched off by HF_HUB_OFFLINE"),
    "pushing nowhere": ({"push_to_hub": True, "hub_model_id": "a/b/c"}, "is no name of a repository"),
    "pushing checkpoints": ({"push_to_hub": True, "hub_strategy": "checkpoint"}, "--hub_strategy is 'end' here"),
    "unknown method": ({"method": "nabla_tua"}, "did you mean nabla_tau?"),
    "batch of nothing": ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size is 0"),
    "refused by transformers": ({"eval_strategy": "steps", "save_strategy": "epoch", "load_best_model_at_end": True,
                                 "metric_for_best_model": "validation_loss"}, "refused by transformers"),
    "best by test": ({"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps",
                      "metric_for_best_model": "test_loss"}, "only the validation rows"),
    "base is the original": ({"original": {"model": "OUT"}}, "--original_model is the model that must forget"),
    "recipe of two": ({"original": {"model": "a", "model_type": "bert"}}, "not both"),
    "unknown architecture": ({"model_name_or_path": None, "processor_name_or_path": "OUT",
                              "original": {"model_type": "vitt"}}, "vitt"),
    "architecture that cannot be": ({"model_name_or_path": None, "processor_name_or_path": "OUT", "original": {
        "model_type": "bert", "model_config": {"hidden_size": 15, "num_attention_heads": 2}}}, "bert"),
    "architecture's values": ({"original": {"model_type": "vit", "model_config": {"hiden_size": 8}}},
                              "vit has no 'hiden_size'; did you mean hidden_size?"),
    "schedule of the recipe": ({"original": {"model_type": "vit", "lr_scheduler_type": "zigzag"}}, "zigzag"),
    "schedule's options": ({"lr_scheduler_kwargs": {"a": 1}}, "--lr_scheduler_type linear"),
    "best by what is not there": ({"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps",
                                   "metric_for_best_model": "validation_lost"}, "it is one of validation_loss"),
    "optimizer not installed": ({"optim": "adamw_bnb_8bit"}, "bitsandbytes"),
    "negative seed": ({"seed": -1}, "--seed is -1"),
    "negative workers": ({"dataloader_num_workers": -1}, "--dataloader_num_workers is -1"),
    "no processor": ({"model_name_or_path": None, "original": {"model_type": "bert"}}, "--processor_name_or_path"),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_everything_else_that_is_refused(capsys, tmp_path, models, case):
    changes, message = DATA[case]
    out = str(models / "out")
    changes = json.loads(json.dumps(changes).replace('"OUT"', json.dumps(out)))
    assert message in refused(capsys, tmp_path, given(models, tmp_path, **changes))


def test_labels_that_the_model_does_not_have(capsys, tmp_path, models):
    shutil.copytree(models / "data", tmp_path / "data")
    with open(tmp_path / "data" / "train.csv", "a") as file:
        file.write(f"{SECRET} red,hot,,,x\n{SECRET} blue,hot,,,y\n")
    err = refused(capsys, tmp_path, given(models, tmp_path, dataset_name=str(tmp_path / "data")))
    assert "hot" in err and "cold" in err
    config = tiny.digits(tmp_path, task="image_classification", model_name_or_path=str(models / "out"))
    assert refused(capsys, tmp_path, config)


def test_number_of_labels(capsys, tmp_path, models):
    shutil.copytree(models / "out", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config |= {"id2label": {i: f"LABEL_{i}" for i in range(2)}, "label2id": {f"LABEL_{i}": i for i in range(2)}}
    path.write_text(json.dumps(config))
    shutil.copytree(models / "data", tmp_path / "data")
    for split in ("train", "validation", "test"):
        with open(tmp_path / "data" / f"{split}.csv", "a") as file:
            file.write("red,hot,,,x\nblue,hot,,,y\n")
    changes = {"dataset_name": str(tmp_path / "data"), "model_name_or_path": str(tmp_path / "model")}
    assert "the model has 2 labels and the data 3" in refused(capsys, tmp_path, given(models, tmp_path, **changes))


def test_a_row_without_text(capsys, tmp_path, models):
    shutil.copytree(models / "data", tmp_path / "data")
    path = tmp_path / "data" / "train.csv"
    lines = path.read_text().splitlines()
    lines[8] = f",{lines[8].split(',')[1]},q,a,{SECRET}"
    path.write_text("\n".join(lines) + "\n")
    err = refused(capsys, tmp_path, given(models, tmp_path, dataset_name=str(tmp_path / "data")))
    assert "row 7: it has no text" in err


def test_a_file_that_cannot_be_read(capsys, tmp_path, models):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "{SECRET}", "label": 1}}\n{{"text": "{SECRET}", \n')
    assert "rows.jsonl" in refused(capsys, tmp_path, given(models, tmp_path, dataset_name=str(path)))


def test_a_proxy_that_breaks_down(capsys, tmp_path):
    """Nothing is kept of a training on the side, and nothing is said to be."""
    config = tiny.digits(tmp_path, dtype="float16", proxy_epochs=20)
    assert main(["--config", tiny.write_config(tmp_path, config)]) == 1
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and "not finite" in err and "is kept" not in err
    assert not (tmp_path / "out").exists()


def test_an_unreadable_image(capsys, tmp_path):
    config = tiny.own_data(tmp_path, "image_classification")
    (tmp_path / "data" / "train" / "warm" / "001.png").write_bytes(b"no image")
    assert "its image cannot be read" in refused(capsys, tmp_path, config)


def test_validation_rows_that_are_training_rows(capsys, tmp_path, models):
    shutil.copytree(models / "data", tmp_path / "data")
    shutil.copy(tmp_path / "data" / "train.csv", tmp_path / "data" / "validation.csv")
    config = given(models, tmp_path, dataset_name=str(tmp_path / "data"))
    assert "60 of 60 validation rows are training rows" in refused(capsys, tmp_path, config)


def test_a_validation_set_that_the_model_was_trained_on(capsys, tmp_path):
    """Not the same rows, but rows that it knows as well. A model that generalises looks the same: it is noted."""
    config = tiny.own_data(tmp_path, "text_classification", method="fine_tune")
    del config["proxy_epochs"]
    config["original"] |= {"num_train_epochs": 150}
    config["learning_rate"] = 1e-9  # the model is what the recipe made
    data = tmp_path / "data"
    lines = (data / "train.csv").read_text().splitlines()
    assert main(["--config", tiny.write_config(tmp_path, config)]) == 0
    for split, part in {"train": lines[1:41], "validation": lines[41:]}.items():
        (data / f"{split}.csv").write_text("\n".join([lines[0], *part]) + "\n")
    config = given(tmp_path, tmp_path) | {"output_dir": str(tmp_path / "unlearned"), "max_steps": 2}
    assert main(["--config", tiny.write_config(tmp_path, config)]) == 0
    notes = json.loads((tmp_path / "unlearned" / "evidence.json").read_text())["notes"]
    assert "The model's loss on validation rows is not above that on its training rows." in notes


def test_a_loss_that_is_not_finite(capsys, tmp_path):
    config = tiny.digits(tmp_path, learning_rate=1e30, proxy_epochs=0.1, lr_scheduler_type="constant", variant="held")
    assert main(["--config", tiny.write_config(tmp_path, config)]) == 1
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and "not finite at step" in err and "is kept in checkpoint-" in err
    kept = list((tmp_path / "out").iterdir())
    assert len(kept) == 1 and kept[0].name.startswith("checkpoint-") and (kept[0] / "model.safetensors").is_file()


def test_an_output_folder_that_is_not_empty(capsys, tmp_path, models):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("data")
    config = given(models, tmp_path, output_dir=str(tmp_path / "out"))
    assert "is not empty" in refused(capsys, tmp_path, config)
    assert "is a file" in refused(capsys, tmp_path, config | {"output_dir": str(tmp_path / "out" / "precious")})


def test_a_dry_run_writes_nothing(capsys, tmp_path, models):
    config = given(models, tmp_path)
    path = tiny.write_config(tmp_path, config)
    assert main(["--config", path, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "forget 12, retain 48" in out and "nothing was written" in out and "steps of 4 forget rows" in out
    assert re.search(r"^time       about \d+ s: unlearning \d+ s, scoring 2 models \d+ s \(1 cpu process, ", out, re.M)
    assert "MB a process" in out and "validation for targets " in out
    assert re.search(r"^retrain    no twins, .* \(--original_model, …\) and add --retrain 2, or name", out, re.M)
    assert re.search(r"^cost       reads as many rows as \d+\.\d epochs of retraining", out, re.M)
    assert sorted(tmp_path.iterdir()) == [Path(path)]
    path = tiny.write_config(tmp_path, {key: value for key, value in config.items() if key != "num_train_epochs"})
    assert main(["--config", path, "--dry_run", "--output_dir", str(models)]) == 0
    out = capsys.readouterr().out
    assert "not empty: train refuses it" in out and re.search(
        r"^time .*: unlearning \d+ s, .* \d+ s; at most \d+ s ", out, re.M
    )


def test_large_roles_are_sampled_unless_all_rows_are_asked_for(capsys, tmp_path, models, monkeypatch):
    monkeypatch.setattr(scored_rows, "MOST_SCORED", 16)
    config = given(models, tmp_path, method="fine_tune", max_steps=1)
    del config["proxy_epochs"]
    path, out = tiny.write_config(tmp_path, config), tmp_path / "new" / "out"
    assert main(["--config", path, "--dry_run"]) == 0
    assert "2 models, each on 12 forget rows, 16 of 48 retain rows, 16 of 20 test rows" in capsys.readouterr().out
    assert main(["--config", path]) == 0
    evidence = json.loads((out / "evidence.json").read_text())
    assert [(role["rows"], role["of"]) for role in evidence["sampled"].values()] == [(16, 48), (16, 20)]
    own = evidence["sampled"]["retain"]["standard_errors"]["unlearned"]
    assert own["accuracy"] > 0 and own["loss"] > 0 and not validate(evidence)
    told = "Scored were 16 of 48 retain rows and 16 of 20 test rows, drawn by the seed"
    card, page = (out / "README.md").read_text(), (out / "report.html").read_text()
    assert all(told in " ".join(text.split()) for text in (capsys.readouterr().out, card, page))
    shutil.rmtree(out)
    assert main(["--config", path, "--score_all"]) == 0
    assert "sampled" not in json.loads((out / "evidence.json").read_text())
    assert "drawn by the seed" not in capsys.readouterr().out


def test_command_line(capsys):
    assert cli.main([]) == 0 and "train" in capsys.readouterr().out
    assert cli.main(["trian"]) == 2
    assert "unknown command 'trian'" in capsys.readouterr().err
    assert cli.main(["completion"]) == 0
    words = capsys.readouterr().out
    assert words.startswith('complete -o default -W "') and {"train", "--forget_ids", "--bf16"} <= set(words.split())
    assert cli.main(["env"]) == 0
    told = capsys.readouterr().out
    assert "torch " in told and "{" not in told and "seed" not in told


def test_the_cache_says_where_rows_stay(capsys, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_UNLEARN_CACHE", str(tmp_path))
    (tmp_path / "smollm2-135m-instruct").mkdir()
    (tmp_path / "smollm2-135m-instruct" / "config.json").write_text("{}")
    assert cli.main(["cache"]) == 0
    told = capsys.readouterr().out
    assert "the demo's chat model" in told and "1 entry of" in told
    assert cli.main(["cache", "--clear"]) == 0 and not list(tmp_path.iterdir())
    assert f"datasets cache: {datasets.config.HF_DATASETS_CACHE}" in told


def test_a_cache_folder_that_was_mistyped_is_not_taken_for_an_empty_one(capsys, tmp_path):
    assert cli.main(["cache", "--clear", "--cache_dir", str(tmp_path / "cahce")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_every_flag_has_a_text_of_its_own(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    assert "Switches --classifier_attacks off." in " ".join(capsys.readouterr().out.split())


def test_report(capsys, tmp_path, models):
    assert cli.main(["report", str(models / "out")]) == 0
    assert "forget accuracy" in capsys.readouterr().out
    (tmp_path / "evidence.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "evidence.json").write_text('{"schema_version": 1}')
    for argv in ([], [str(tmp_path / "nowhere")], [str(tmp_path)], [str(tmp_path / "other")]):
        assert cli.main(["report", *argv]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("argv", [["--help-all"], ["--help-all", "--method", "fine_tune"], ["--method", "x", "-h"]])
def test_help(capsys, argv):
    """All arguments of the method; or one screen, whose arguments exist."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", *argv])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert ("--proxy_epochs" in out) == (argv == ["--help-all"]) and "--forget_classes" in out
    assert ("Switches --cache_rows off." in " ".join(out.split())) == ("-h" not in argv)
    if "-h" in argv:
        assert len(out.splitlines()) <= 52 and max(map(len, out.splitlines())) <= 110
        known = {action.dest for action in _build_parser(NablaTauConfig, DataArguments)._actions}
        assert {name for group in EVERYDAY.values() for name in group} <= known


def test_json_is_all_that_is_printed(capsys, tmp_path, models):
    config = given(models, tmp_path, method="fine_tune", max_steps=1)
    del config["proxy_epochs"]
    path = tiny.write_config(tmp_path, config)
    assert main(["--config", path, "--json", "--dry_run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["splits"]["forget"] == 12 and {"time", "memory"} <= {line["what"] for line in plan["plan"]}
    assert main(["--config", path, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    say("a later command speaks again")
    assert capsys.readouterr().out
    assert printed == json.loads((tmp_path / "new" / "out" / "evidence.json").read_text())


def test_a_plan_names_one_cost(capsys, tmp_path):
    config = tiny.own_data(tmp_path, "text_classification")
    config["original"]["num_train_epochs"] = 3
    assert main(["--config", tiny.write_config(tmp_path, config), "--json", "--dry_run"]) == 0
    told = " ".join(line["text"] for line in json.loads(capsys.readouterr().out)["plan"])
    assert len(re.findall(r"\d+ ?% of (?:the examples of )?one retraining", told)) == 1, told
