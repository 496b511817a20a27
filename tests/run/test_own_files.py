"""Files of one's own, as people have them: two files as in TOFU, parquet, chats by customer, plain images."""

import csv
import json

import datasets
import pytest
import tiny
from toy import tokenizer
from transformers import BertConfig, LlamaConfig, T5Config, ViTConfig

from hf_unlearn.data.sources import Source
from hf_unlearn.errors import UserError
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.run.which_task import which_task
from hf_unlearn.train import main

HEADS = {
    "BertForSequenceClassification": (BertConfig(), "text_classification"),
    "LlamaForCausalLM": (LlamaConfig(), "causal_lm"),
    "ViTForImageClassification": (ViTConfig(), "image_classification"),
    "T5ForConditionalGeneration": (T5Config(), None),
}
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"


def rows(**columns) -> Source:
    return Source(name="mine", train=datasets.Dataset.from_dict(columns))


@pytest.mark.parametrize("head", HEADS)
def test_the_head_of_a_model_tells_its_task(head, tmp_path):
    config, task = HEADS[head]
    config.architectures = [head]
    config.save_pretrained(tmp_path)
    arguments = parse_arguments(["--model_name_or_path", str(tmp_path)])
    source = rows(question=["a"], answer=["b"])  # columns do not matter where there is a model
    if task is None:
        with pytest.raises(UserError, match=f"no --task, and {head} is made for none"):
            which_task(arguments, source)
    else:
        assert which_task(arguments, source) == task


@pytest.mark.parametrize("kind, task", [("CAUSAL_LM", "causal_lm"), ("SEQ_CLS", "text_classification")])
def test_the_type_of_an_adapter_tells_its_task(kind, task, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "task_type": kind}))
    assert which_task(parse_arguments(["--model_name_or_path", str(tmp_path)]), rows(text=["a"])) == task


@pytest.mark.parametrize(
    "problem, labels, task",
    [
        ("multi_label_classification", [1], "multilabel_text_classification"),
        (None, [[1]], "multilabel_text_classification"),
        (None, [1], "text_classification"),
        ("single_label_classification", [[1]], "text_classification"),
        ("regression", [1], "text_classification"),  # which refuses it by name
    ],
)
def test_where_two_tasks_share_a_head_its_problem_tells_or_the_columns(problem, labels, task, tmp_path):
    config = BertConfig(problem_type=problem, architectures=["BertForSequenceClassification"])
    config.save_pretrained(tmp_path)
    arguments = parse_arguments(["--model_name_or_path", str(tmp_path)])
    assert which_task(arguments, rows(text=["a"], labels=labels)) == task


def test_without_a_model_the_columns_tell():
    arguments = parse_arguments([])
    assert which_task(arguments, rows(text=["a"], label=[1])) == "text_classification"
    assert which_task(arguments, rows(text=["a"], labels=[[1]])) == "multilabel_text_classification"
    assert which_task(arguments, rows(text=["a"], tags=[["b"]])) == "causal_lm"
    assert which_task(parse_arguments(["--label_columns", "a", "b"]), rows(text=["a"])) == (
        "multilabel_text_classification"
    )
    assert which_task(arguments, rows(question=["a"], answer=["b"], label=["c"])) == "causal_lm"
    assert which_task(arguments, rows(messages=[[]])) == "causal_lm"
    assert which_task(parse_arguments(["--task", "causal_lm"]), rows(text=["a"], label=[1])) == "causal_lm"


def plan(capsys, folder, config: dict) -> str:
    assert main(["--config", tiny.write_config(folder, config), "--dry_run"]) == 0
    return capsys.readouterr().out


def test_two_files_as_in_tofu(tmp_path, capsys):
    """What must go as jsonl and what is kept as parquet, both trained on; nobody says the task."""
    config = tiny.own_data(tmp_path, "causal_lm")
    del config["task"], config["dataset_name"], config["forget_fraction"], config["question_column"]
    with open(tmp_path / "data" / "train.csv", newline="") as file:
        table = [{"question": r["question"], "answer": r["answer"]} for r in csv.DictReader(file)]
    (tmp_path / "forget.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table[:7]))
    for name, part in (("retain", table[7:40]), ("validation", table[40:50]), ("test", table[50:])):
        datasets.Dataset.from_list(part).to_parquet(tmp_path / f"{name}.parquet")
    config |= {"forget_file": str(tmp_path / "forget.jsonl")}
    config |= {f"{name}_file": str(tmp_path / f"{name}.parquet") for name in ("retain", "validation", "test")}
    out = plan(capsys, tmp_path, config)
    assert "task       causal_lm on retain.parquet" in out and "forget 7, retain 33" in out


def test_chats_by_customer(tmp_path, capsys):
    config = tiny.own_data(tmp_path, "causal_lm")
    for key in ("task", "dataset_name", "forget_fraction", "question_column", "answer_column"):
        del config[key]
    chatty = tokenizer()
    chatty.chat_template = TEMPLATE
    chatty.save_pretrained(tmp_path / "processor")

    def chats(start: int, count: int) -> str:
        said = [("user", "red {i}"), ("assistant", "owl"), ("user", "slow"), ("assistant", "cat old")]
        turns = [[(role, text.format(i=i)) for role, text in said] for i in range(count)]
        found = [
            {"messages": [{"role": r, "content": f"{c} {start}"} for r, c in turn], "customer_id": f"C{i % 5}"}
            for i, turn in enumerate(turns)
        ]
        return "".join(json.dumps(row) + "\n" for row in found)

    (tmp_path / "train.jsonl").write_text(chats(0, 30))
    (tmp_path / "test.jsonl").write_text(chats(1, 12))
    (tmp_path / "ids.txt").write_text("C3\n")
    config |= {"train_file": str(tmp_path / "train.jsonl"), "test_file": str(tmp_path / "test.jsonl")}
    config |= {"forget_ids": str(tmp_path / "ids.txt"), "id_column": "customer_id"}
    out = plan(capsys, tmp_path, config)
    assert "forget 6, retain 18" in out and "C3" not in out  # six more are held out


def test_a_vision_model_from_scratch_gets_an_image_processor(tmp_path, capsys):
    config = tiny.own_data(tmp_path, "image_classification")
    del config["processor_name_or_path"]
    assert "ViTForImageClassification" in plan(capsys, tmp_path, config)
    config["original"]["model_config"] = tiny.VIT | {"num_channels": 1}
    config["task"] = None
    assert "task       image_classification" in plan(capsys, tmp_path, config)
