"""Unlearning from Python: what `unlearn` makes of its arguments, and what it gives back."""

import json
import re

import datasets
import numpy as np
import pytest
import torch
import transformers
from toy import SETUPS, image_rows, set_rows, text_rows, vit

import hf_unlearn
from hf_unlearn.api import unlearn
from hf_unlearn.data.given import NAME, make_splits, task_of
from hf_unlearn.data.request import ForgetRequest
from hf_unlearn.data.rows import Rows
from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.callback import UnlearningEvalCallback
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.hub.staging import stage
from hf_unlearn.methods.fine_tune import FineTuneConfig, FineTuneTrainer
from hf_unlearn.models import lora
from hf_unlearn.report.evidence import validate

QUICK = {"method": "fine_tune", "max_steps": 2, "learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True}


def setup(kind: str = "image", rows: int = 40, test: int = 24):
    """A model, its processor, its rows, and `columns` where they cannot be told."""
    model, _, task = SETUPS[kind]()
    if task.label_names:
        model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
        model.config.id2label = dict(enumerate(task.label_names))
    make = {"image": image_rows, "sets": set_rows}.get(kind, text_rows)
    data = {"train": make(rows), "test": make(test, seed=1)}
    return model, task.processor, data, ({"columns": task.columns} if kind in ("lm", "sets") else {})


@pytest.mark.parametrize("method", ["nabla_tau", "fine_tune"])
@pytest.mark.parametrize("kind", SETUPS)
def test_one_call_unlearns_measures_and_saves(tmp_path, kind, method):
    model, processor, data, more = setup(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = QUICK | more | {"method": method} | ({"proxy_epochs": 0.5} if method == "nabla_tau" else {})
    result = unlearn(model, processor, data, forget=[3, 8, 8, 5], output_dir=tmp_path / "out", **options)
    assert result.splits.sizes() == {
        "forget": 3, "retain": 37, "validation_tau": 6, "validation_stop": 6, "test": 12
    }  # fmt: skip
    assert result.splits.forget.indices == [3, 5, 8]
    assert result.model is model and any(not torch.equal(model.state_dict()[name], before[name]) for name in before)
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert validate(evidence) == [] and evidence["method"]["name"] == method
    assert evidence["models"]["original"] and evidence["models"]["unlearned"] and not evidence["models"]["retrained"]
    assert evidence["data"]["request"] == {"kind": "rows", "column": None, "rows": 3}
    assert evidence["cost"]["steps"] == 2 and evidence["cost"]["unlearn_examples"] > 0
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    shown = repr(result)
    assert f"{method}: 3 of 40 training rows" in shown and "forget accuracy (%)" in shown
    cell = result._repr_html_()
    assert "3 training rows of 40 were to be forgotten" in cell and '<th scope="row">forget accuracy (%)</th>' in cell
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_by_default_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, processor, data, _ = setup()
    result = unlearn(model, processor, data, forget=0.1, **QUICK)
    assert len(result.splits.forget) == 4 and result.evidence["data"]["request"]["kind"] == "fraction"
    assert not list(tmp_path.iterdir()) and result.folder is None
    with pytest.raises(UserError, match="not saved"):
        result.push_to_hub("a/b")
    assert result.save("here") == result.folder and (tmp_path / "here" / "model.safetensors").is_file()
    assert result.trainer.args.output_dir == "unlearned"


@pytest.mark.parametrize("rows", ["train.csv", [{"text": "a", "label": 0}], "data set", "splits"])
def test_rows_in_the_place_of_the_processor_are_told(rows):
    model, _, data, _ = setup("text")
    given = {"data set": data["train"], "splits": data}.get(rows, rows) if isinstance(rows, str) else rows
    with pytest.raises(UserError, match="rows stand in the place of the processor; name them"):
        unlearn(model, given, test=data["test"], forget=0.1)


def test_an_adapter_is_merged_unless_it_was_given(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model, processor, data, _ = setup("text")
    result = unlearn(model, processor, data, forget=[1, 2], use_peft=True, output_dir=tmp_path / "out", **QUICK)
    assert not isinstance(result.model, PeftModel) and isinstance(result.trainer.model, PeftModel)
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    loaded = type(result.model).from_pretrained(tmp_path / "out")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in result.model.state_dict().items())
    assert "merged into the weights" in (tmp_path / "out" / "README.md").read_text()

    given = get_peft_model(setup("text")[0], LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"]))
    result = unlearn(given, processor, data, forget=[1, 2], **QUICK)
    assert result.model is given and result.evidence["model"]["peft"]["r"] == 2
    result.save(tmp_path / "adapter", save_adapter=True)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert "library_name: peft" in (tmp_path / "adapter" / "README.md").read_text()
    assert "model.safetensors" not in {path.name for path in (tmp_path / "adapter").iterdir()}
    result.save(tmp_path / "adapter")  # merged weights take its place
    assert not (tmp_path / "adapter" / "adapter_config.json").exists()
    with pytest.raises(UserError, match="has an adapter already"):
        unlearn(given, processor, data, forget=[1, 2], use_peft=True, **QUICK)


def test_an_adapter_by_name_has_the_tokenizer_of_its_base(tmp_path):
    """`save_pretrained` of an adapter saves no tokenizer."""
    model, processor, data, _ = setup("lm")
    model.save_pretrained(tmp_path / "base")
    adapter = lora.add_lora(model, r=2, alpha=4, dropout=0.0, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapter.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapter.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="no tokenizer"):
        unlearn(tmp_path / "adapter", dataset=data, forget=[0, 1], **QUICK)
    processor.save_pretrained(tmp_path / "base")
    assert len(unlearn(tmp_path / "adapter", dataset=data, forget=[0, 1], **QUICK).splits.forget) == 2


def test_a_chat_adapter_a_file_of_messages_and_a_customer(tmp_path):
    """The way of a support team: an adapter, chats from a file, a request by customer, a push with its card."""
    model, processor, data, _ = setup("lm")
    processor.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    trained = lora.add_lora(model, r=2, alpha=4, dropout=0.0, target_modules=["q_proj"], task_type="CAUSAL_LM")
    torch.nn.init.normal_(trained.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight)
    trained.peft_config["default"].base_model_name_or_path = "tester/base"
    for name, rows in data.items():
        turns = [[("user", row["question"]), ("assistant", row["answer"])] for row in rows]
        chats = [[{"role": role, "content": text} for role, text in turn] for turn in turns]
        lines = [json.dumps({"messages": chat, "customer": f"{name} xyzzy {i // 4}"}) for i, chat in enumerate(chats)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "requests.txt").write_text("train xyzzy 3\n")

    chats = datasets.load_dataset("json", data_files={k: str(tmp_path / f"{k}.jsonl") for k in ("train", "test")})
    request = ForgetRequest(ids_file=str(tmp_path / "requests.txt"), id_column="customer")
    result = unlearn(trained, processor, chats, forget=request, **QUICK | {"method": "nabla_tau", "proxy_epochs": 0.5})
    result.save(tmp_path / "out", save_adapter=True)
    assert "adapter_model.safetensors" in stage(tmp_path / "out", tmp_path / "pushed")  # what a push sends

    assert result.splits.forget.indices == [12, 13, 14, 15] and list(trained.peft_config) == ["default"]
    card = (tmp_path / "pushed" / "README.md").read_text()
    assert "base_model: tester/base" in card
    assert "xyzzy" not in card
    assert result.evidence["model"]["peft"]["given"]
    assert {name.split(".")[-3] for name, p in trained.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_a_model_that_does_not_know_the_rows_is_told_in_the_evidence():
    model, processor, data, _ = setup("text")  # ten rows of each of four classes
    head = model.classifier
    torch.nn.init.zeros_(head.weight)
    head.bias.data = 10 * torch.nn.functional.one_hot(torch.tensor(data["train"]["label"][3]), 4).float()
    result = unlearn(model, processor, data, forget=[3], **QUICK)  # it says the class that has a row less than others
    assert any("the original gets 23 % of the retain rows right" in note for note in result.evidence["notes"])
    result = unlearn(model, processor, data, forget=[4], **QUICK)
    assert not any("the original gets" in note for note in result.evidence["notes"])


def test_the_result_is_scored_in_its_own_precision():
    model, processor, data, _ = setup()
    result = unlearn(model, processor, data, forget=[1, 2, 3], bf16=True, **QUICK)
    read = type(model)(model.config)  # as from a file: nothing but the weights
    read.load_state_dict(result.model.state_dict())
    found = score(read, result.trainer.task, result.splits.forget).loss.mean()
    assert result.evidence["models"]["unlearned"]["loss"]["forget"] == pytest.approx(found, rel=1e-6)
    seen = []
    result.model.classifier.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    result.trainer.train()  # and once more, in the run's
    assert set(seen) == {torch.bfloat16}


def test_classes_by_name(tmp_path):
    model, processor, data, _ = setup()
    result = unlearn(model, processor, data, forget="two", **QUICK)
    assert set(np.array(data["train"]["label"])[result.splits.forget.indices]) == {2}
    assert len(result.splits.unseen_forgotten) == 3 and "1 classes removed" in repr(result.splits)
    assert result.evidence["data"]["request"] == {"kind": "classes", "column": "label", "count": 1, "rows": 10}
    with pytest.raises(UserError, match="1 of 1 classes of `forget` are unknown"):
        unlearn(model, processor, data, forget=["seven"], **QUICK)


def test_retrained_models_are_the_yardstick():
    model, processor, data, _ = setup()
    result = unlearn(model, processor, data, forget=[1, 2, 3], retrained=[vit(seed=1), vit(seed=2)], **QUICK)
    assert result.evidence["models"]["retrained"]["twins"] == 2 and result.evidence["floor"]["average"] is not None


def test_what_a_language_model_says_instead_is_held_against_the_twins_that_are_given():
    model, processor, data, more = setup("lm")
    twin = type(model)(model.config)
    result = unlearn(model, processor, data, forget=[1, 2, 3], retrained=[twin], **QUICK, **more)
    said = result.evidence["said_instead"]
    assert said["tokens"] == said["of"] > 0 and said["unlearned"] > 0 and said["twins"] is None
    assert "said instead (KL, nats/token)" in repr(result)


def test_splits_and_columns_by_name_or_by_argument():
    import datasets

    model, processor, data, _ = setup()
    data = datasets.DatasetDict(train=data["train"], val=image_rows(20, seed=3), test=data["test"])
    result = unlearn(model, processor, data, forget=[1], **QUICK)
    assert len(result.splits.test) == 24 and len(result.splits.validation_tau) == 10
    train, validation, test = (data[name].rename_column("label", "kind") for name in ("train", "val", "test"))
    more = {"columns": {"label": "kind"}, "validation": validation, "test": test}
    result = unlearn(model, processor, train, forget=[1], **more, **QUICK)
    assert len(result.splits.validation_stop) == 10 and result.evidence["data"]["source"] == NAME


def test_a_model_and_its_processor_by_name(tmp_path):
    model, processor, data, _ = setup()
    model.save_pretrained(tmp_path / "m")
    for given in (None, str(tmp_path / "m"), processor):
        processor.save_pretrained(tmp_path / "m")
        result = unlearn(str(tmp_path / "m"), given, data, forget=lambda row: sum(row["image"][0]) < 70, **QUICK)
        assert 0 < len(result.splits.forget) < 40 and type(result.model) is type(model)
    model.config._name_or_path = str(tmp_path / "m")
    assert unlearn(model, dataset=data, forget=[1], **QUICK).model is model
    for name, said in (
        (7, "model= is int: give a model"),
        ("./nope", "no folder ./nope"),
        ("tests", "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=said):
            unlearn(name, processor, data, forget=[1], **QUICK)


def test_a_trainer_is_made_as_any_other(tmp_path):
    model, processor, data, _ = setup()
    args = FineTuneConfig(tmp_path / "out", max_steps=2, use_cpu=True, disable_tqdm=True, report_to="none")
    rows = {"train_dataset": data["train"], "processing_class": processor, "forget": [3, 5]}
    trainer = FineTuneTrainer.from_datasets(model, args, eval_dataset=data["test"], **rows)
    assert trainer.splits.sizes() == {
        "forget": 2, "retain": 38, "validation_tau": 6, "validation_stop": 6, "test": 12
    }  # fmt: skip
    assert any("serve as validation" in note for note in trainer.notes)
    assert trainer.train().global_step == 2 and "eval_forget_loss" in trainer.evaluate()
    trainer.save_model()
    assert type(model).from_pretrained(tmp_path / "out").config.num_labels == 4
    both = {"validation": data["test"].select(range(10)), "test": data["test"].select(range(10, 24))}
    trainer = FineTuneTrainer.from_datasets(model, args, eval_dataset=both, **rows)
    assert len(trainer.splits.test) == 14 and len(trainer.splits.validation_tau) == 5
    splits, task = make_splits(model, processor, data, forget=[3, 5])
    other = transformers.Trainer(model, transformers.TrainingArguments(tmp_path / "other", use_cpu=True))
    assert hf_unlearn.make_splits is make_splits and splits.sizes()["forget"] == 2
    UnlearningEvalCallback(other, splits, task)._score(other.args, other.state, transformers.TrainerControl())
    assert 0 <= other.state.log_history[-1]["eval_forget_accuracy"] <= 1
    with pytest.raises(UserError, match="args= is TrainingArguments: FineTuneTrainer takes a FineTuneConfig"):
        FineTuneTrainer.from_datasets(model, other.args, eval_dataset=both, **rows)
    with pytest.raises(UserError, match="eval_dataset= has dev: name the rows validation and test"):
        FineTuneTrainer.from_datasets(model, args, eval_dataset={"dev": data["test"]}, **rows)
    with pytest.raises(UserError, match="eval_dataset= is None: give rows"):
        FineTuneTrainer.from_datasets(model, args, eval_dataset=None, **rows)


def test_the_tasks_are_told_by_the_models_class():
    from transformers import GPT2Config, GPT2LMHeadModel

    assert [task_of(SETUPS[kind]()[0]).name for kind in SETUPS] == [
        "image_classification",
        "text_classification",
        "multilabel_text_classification",
        "causal_lm",
    ]
    tiny = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10, bos_token_id=0, eos_token_id=0)
    assert task_of(GPT2LMHeadModel(tiny)).name == "causal_lm"
    with pytest.raises(UserError, match="Linear belongs to no task"):
        task_of(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"forget": []}, "forget= takes"),
        ({"forget": [True, False]}, "forget= takes"),
        ({"forget": [1.5]}, "forget= takes"),
        ({"forget": [40]}, "not among the 40 training rows"),
        ({"forget": [-1]}, "not among the 40 training rows"),
        ({"forget": {}}, "forget= takes"),
        ({"forget": {"label": []}}, "forget= has no value of 'label': nothing to forget"),
        ({"forget": {"labl": [1]}}, "`forget`: no column 'labl'"),
        ({"forget": {"label": [9]}}, "`forget` names values of the label column 'label'"),
        ({"forget": {"label": [1]}}, "name those as classes, forget=['…'], alone"),
        ({"forget": ForgetRequest(where={"labl": [1]})}, "`where`: no column 'labl'"),
        ({"forget": [1], "method": "unsir"}, "name them as classes, forget=['…']"),
        ({"forget": 1.0}, "`forget` must lie between 0 and 1"),
        ({"forget": range(40)}, "takes all 40 training rows"),
        ({"forget": None}, "forget= takes"),
        ({"forget": 3}, "forget= takes"),
        ({"max_length": 0}, "`max_length` is 0; give a number above 0"),
        ({"split_seed": -1}, "`split_seed` is -1"),
        ({"learning_rate": "fast"}, "`learning_rate` is fast; give a number above 0"),
        ({"num_train_epochs": [1]}, "`num_train_epochs` is [1]; give a number above 0"),
        ({"retrained": torch.nn.Linear(1, 1)}, "retrained= takes a list"),
        ({"retrained": ["twin"]}, "retrained= takes a list"),
        ({"base": "./nope"}, "base './nope' cannot be loaded: there is no such folder"),
        ({"max_steps": 0}, "`max_steps` is 0; give a number above 0"),
        ({"text_column": "words"}, "no argument 'text_column'; name columns in columns={…}"),
        ({"lr": 1e-4}, "no argument 'lr'; it is called learning_rate here"),
        ({"metod": "salun"}, "no argument 'metod'; did you mean method?"),
        ({"lerning_rate": 1}, "no argument 'lerning_rate'; did you mean learning_rate"),
        ({"method": "nabla"}, "unknown `method`"),
        ({"task": "regression"}, "unknown `task`"),
        ({"lr_scheduler_type": "none such"}, "refused by transformers"),
        ({"processor": 3}, "processor= is int: give a tokenizer"),
        ({"forget": ForgetRequest(rows=np.array([40]))}, "`rows` names places beyond the 40 training rows"),
        ({"columns": {"label": "nowhere"}}, "no column 'nowhere'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, more, said):
    model, processor, data, _ = setup()
    with pytest.raises(UserError, match=re.escape(said)) as error:
        given = {"processor": processor, "forget": [1], "output_dir": tmp_path / "out"}
        unlearn(model, dataset=data, **QUICK | given | more)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_numbers_that_are_none_and_a_folder_that_is_a_file(tmp_path):
    model, processor, data, _ = setup()
    (tmp_path / "file").write_text("x")
    for folder in ("file", "file/below"):
        with pytest.raises(UserError, match="`output_dir` .* cannot be written to"):
            unlearn(model, processor, data, forget=[1], output_dir=tmp_path / folder, **QUICK)
    with torch.no_grad():
        next(model.parameters()).view(-1)[3] = float("nan")
    with pytest.raises(UserError, match="model: the weight .* holds what is no finite number"):
        unlearn(model, processor, data, forget=[1], **QUICK)


def test_unseen_rows_are_needed(tmp_path):
    model, processor, data, _ = setup()
    with pytest.raises(UserError, match="no test rows.*test="):
        unlearn(model, processor, data["train"], forget=[1], **QUICK)
    with pytest.raises(UserError, match="no split 'train'"):
        unlearn(model, processor, {"test": data["test"]}, forget=[1], **QUICK)
    with pytest.raises(UserError, match="validation rows are training rows"):
        unlearn(model, processor, data["train"], validation=data["train"], test=data["test"], forget=[1], **QUICK)


def test_objects_print_usefully_and_without_the_requests_values():
    ids = ForgetRequest(ids_file="/home/me/people.txt", id_column="user_id")
    assert repr(ids) == "ForgetRequest(ids, column='user_id')"
    assert repr(ForgetRequest(fraction=0.1)) == "ForgetRequest(fraction, fraction=0.1)"
    assert repr(ForgetRequest(where=["owner=ann", "owner=bob"])) == "ForgetRequest(where, column='owner', count=2)"
    assert "ann" not in repr(ForgetRequest(where=["ann"])) and "cat" not in repr(ForgetRequest(classes=["cat"]))
    model, processor, data, _ = setup()
    _, splits, task = SETUPS["image"]()
    assert repr(Source("digits", data["train"], test=data["test"])) == "Source('digits', train=40, test=24)"
    assert repr(Rows(data["train"], task, [1, 2])) == "Rows(2 of 40 rows, image_classification)"
    assert repr(splits).startswith("UnlearningSplits(forget=11, retain=30, validation_tau=12,")


def test_it_is_at_the_top_of_the_package():
    if "unlearn" in hf_unlearn.__all__:
        assert hf_unlearn.unlearn is unlearn


def test_rows_are_divided_as_on_the_command_line():
    """The seed of the run does not decide which test rows serve as validation; `split_seed` does, and is stored."""
    model, processor, data, _ = setup()
    runs = [
        unlearn(model, processor, data, forget=[1], **QUICK, **more) for more in ({}, {"seed": 3}, {"split_seed": 3})
    ]
    tests = [sorted(run.splits.test.source["image"], key=str) for run in runs]
    assert tests[0] == tests[1] != tests[2]
    assert [run.evidence["data"]["division"]["seed"] for run in runs] == [0, 0, 3]
    assert [run.evidence["seeds"]["run"] for run in runs] == [42, 3, 42]
