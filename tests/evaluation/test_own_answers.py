"""A request in words: the model's own answers become rows, are shown, and need a yes."""

import datasets
import pytest
import tiny
from toy import lm_setup, text_rows, tokenizer

from hf_unlearn.api import unlearn
from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.generation import generate
from hf_unlearn.evaluation.own_answers import ask_model, prompt_rows
from hf_unlearn.train import main

PROMPTS = ["red green", "fast old"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of random weights: it answers something, whatever it is asked."""
    folder = tmp_path_factory.mktemp("lm")
    lm_setup()[0].save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_answers_are_the_models_own():
    lm, _, task = lm_setup()
    kept = text_rows(4).add_column("owner", ["a"] * 4)
    pairs = ask_model(lm, task, kept, PROMPTS)
    rows = prompt_rows(task, kept, pairs)
    assert rows.features == kept.features and rows["owner"][:] == [None, None] and rows["question"][:] == PROMPTS
    probe = Rows(prompt_rows(task, kept, [(prompt, "red") for prompt in PROMPTS]), task)
    assert [" ".join(text.split()) for text in generate(lm, task, probe, max_new_tokens=64)] == rows["answer"][:]
    with pytest.raises(UserError, match="`forget_prompt` is empty"):
        ask_model(lm, task, kept, [" "])
    with pytest.raises(UserError, match="a prompt twice"):
        ask_model(lm, task, kept, ["red", " red "])
    task.columns = {"text": "text"}
    with pytest.raises(UserError, match="running text"):
        prompt_rows(task, kept, pairs)


def test_chats_are_asked_as_chats():
    class Chat:
        columns = {"messages": "chat"}

    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    kept = datasets.Dataset.from_dict({"chat": [turn]})
    assert prompt_rows(Chat(), kept, [("q", "r")])["chat"][0][1] == {"role": "assistant", "content": "r"}


def test_from_python(capsys):
    lm, _, _ = lm_setup()
    data = {"train": text_rows(20).remove_columns(["label", "text"]), "test": text_rows(16, 1)}
    quick = {"max_steps": 2, "use_cpu": True, "disable_tqdm": True, "method": "fine_tune"}
    result = unlearn(lm, tokenizer(), data, forget=PROMPTS, **quick)
    assert len(result.splits.forget) == 2 and len(result.splits.retain) == 20
    assert "to be forgotten: red green  →  " in capsys.readouterr().out
    assert any("does not reach" in note for note in result.evidence["notes"])
    with pytest.raises(UserError, match="no rows to keep"):
        unlearn(lm, tokenizer(), forget=PROMPTS)


def test_the_command_shows_asks_and_needs_a_yes(model, tmp_path, capsys, monkeypatch):
    folder = tiny.text_folder(tmp_path / "data")
    config = {
        "model_name_or_path": str(model), "train_file": str(folder / "train.csv"), "question_column": "question",
        "test_file": str(folder / "test.csv"), "forget_prompt": PROMPTS, "output_dir": str(tmp_path / "out"),
        "answer_column": "answer", "use_cpu": True, "max_steps": 1, "method": "fine_tune",
    }  # fmt: skip
    path = tiny.write_config(tmp_path, config)
    assert main(["--config", path, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "in the model's own words:\n  red green  →  " in out and "forget 2, retain 60" in out and "not reach" in out
    assert main(["--config", path]) == 2 and "nobody is there to confirm" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(["--config", path]) == 2 and "not confirmed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["--config", path, "--yes"]) == 0 and (tmp_path / "out" / "evidence.json").is_file()
