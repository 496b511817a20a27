"""A cache entry is found by everything that shaped its model, and trusted only while it is whole."""

import dataclasses
import importlib.metadata
import json
import shutil

import pytest
import tiny
import torch
from safetensors import SafetensorError
from toy import image_setup, lm_setup, text_setup

from hf_unlearn.cli import main
from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import NonFiniteLossError
from hf_unlearn.run.recipe import Recipe, train_recipe
from hf_unlearn.run.recipe_cache import MADE, base_identity, entries, entry_key
from hf_unlearn.tasks import get_task

VIT = Recipe(
    model_type="vit", model_config=json.dumps(tiny.VIT), num_train_epochs=1, learning_rate=1e-3, batch_size=8
)  # fmt: skip
LLAMA = Recipe(model_type="llama", model_config=json.dumps(tiny.LLAMA), num_train_epochs=1, batch_size=8)


def made(cache, task, rows, recipe=VIT, seed=0, **more):
    return train_recipe(recipe, task, rows, seed, cache_dir=cache, use_cpu=True, **more)


def test_the_same_again_is_a_hit_and_anything_else_a_miss(tmp_path):
    _, splits, task = image_setup()
    rows = splits.retain
    first = made(tmp_path, task, rows)
    again = made(tmp_path, task, rows)
    assert not first.cached and again.cached and again.examples == first.examples
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in first.model.state_dict().items())
    assert not made(tmp_path, task, rows, seed=1).cached
    assert not made(tmp_path, task, rows.select(range(len(rows))[::-1])).cached
    assert len(list(entries(tmp_path))) == 3


def test_in_mixed_precision_a_model_says_the_same_from_the_cache(tmp_path):
    """A model that Trainer has trained keeps the run's precision in its forward; one that is read has none."""
    _, splits, task = image_setup()
    how = dataclasses.replace(VIT, bf16=True)
    rows, batch = splits.retain, task.collate(splits.test.__getitems__([0, 1, 2, 3]))
    first, again = (made(tmp_path, task, rows, how) for _ in range(2))
    assert not first.cached and again.cached
    with torch.no_grad():
        assert torch.equal(*(task.predict(of.model.eval(), batch).logits for of in (first, again)))


def test_prompts_and_columns_are_in_the_key(tmp_path):
    _, splits, task = lm_setup()
    rows = splits.retain
    kinds = [{}, {"prompt_template": "Answer : {question}"}, {"max_length": 6}]
    tasks = [get_task("causal_lm")(task.processor, task.columns, **kind) for kind in kinds]
    swapped = {"question": "answer", "answer": "question"}
    tasks.append(get_task("causal_lm")(task.processor, swapped))
    for each in tasks:
        assert not made(tmp_path, each, Rows(rows.source, each, rows.indices), LLAMA).cached
    assert made(tmp_path, tasks[0], Rows(rows.source, tasks[0], rows.indices), LLAMA).cached


def test_the_version_of_peft_counts_where_it_trains_the_model(monkeypatch):
    _, splits, task = lm_setup()
    version = importlib.metadata.version

    def keys():
        return [entry_key({"use_peft": adapter}, task, splits.retain, 0) for adapter in (False, True)]

    before = keys()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == "peft" else version(name))
    assert [one == other for one, other in zip(before, keys(), strict=True)] == [True, False]


def test_the_versions_of_what_a_task_needs_count_for_its_models_alone(monkeypatch):
    """As `diffusers` makes the models of the tasks that need it, and has no part in any other."""
    _, splits, task = image_setup()
    pictures = type("Pictures", (type(task),), {"needs": {"yaml": "PyYAML", "nowhere": "nowhere"}})
    drawn = pictures(task.processor, task.columns, label_names=task.label_names)
    version = importlib.metadata.version

    def keys():
        return [entry_key({}, each, splits.retain, 0) for each in (task, drawn)]

    before = keys()
    changed = lambda name: "0.0" if name.lower() == "pyyaml" else version(name)  # noqa: E731
    monkeypatch.setattr(importlib.metadata, "version", changed)
    assert [one == other for one, other in zip(before, keys(), strict=True)] == [True, False]


def test_a_local_base_counts_by_its_content(tmp_path, monkeypatch):
    model, _, _ = text_setup()
    model.save_pretrained(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    assert base_identity("base") == base_identity(str(tmp_path / "base")) == base_identity("copy")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path / "base")
    assert base_identity("base") != base_identity("copy")


@pytest.mark.parametrize("damage", ["zeroed", "truncated", "gone", "no account"])
def test_a_damaged_entry_is_a_miss_and_told(tmp_path, capsys, damage):
    _, splits, task = image_setup()
    first = made(tmp_path, task, splits.retain)
    (entry,) = entries(tmp_path)
    weights = entry.folder / "model.safetensors"
    content = weights.read_bytes()
    if damage == "zeroed":
        weights.write_bytes(content[:-1000] + bytes(1000))
    elif damage == "truncated":
        weights.write_bytes(content[:-1000])
    elif damage == "gone":
        weights.unlink()
    else:
        (entry.folder / MADE).write_text("[")
    again = made(tmp_path, task, splits.retain)
    assert not again.cached and f"{entry.folder} is damaged" in capsys.readouterr().out
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in first.model.state_dict().items())
    assert made(tmp_path, task, splits.retain).cached


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError(30, "Read-only file system"),
     SafetensorError("I/O error: No space left on device (os error 28)")],
)  # fmt: skip
def test_a_cache_that_cannot_be_written_loses_nothing(tmp_path, capsys, monkeypatch, error):
    _, splits, task = image_setup()

    def full(*_, **__):
        raise error

    monkeypatch.setattr(type(task.processor), "save_pretrained", full)
    assert made(tmp_path, task, splits.retain).examples > 0
    assert "not kept in the cache" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_recipe_that_diverges_is_no_original(tmp_path):
    _, splits, task = image_setup()
    with pytest.raises(NonFiniteLossError, match="training ended in weights that are not finite; lower `original_lea"):
        made(tmp_path, task, splits.retain, dataclasses.replace(VIT, learning_rate=1e38, num_train_epochs=3))
    assert not list(tmp_path.iterdir())


def test_the_command_lists_and_clears(tmp_path, capsys):
    _, splits, task = image_setup()
    for seed in (0, 1):
        made(tmp_path, task, splits.retain, seed=seed)
    (tmp_path / "mine").mkdir()
    names = [entry.folder.name for entry in entries(tmp_path)]
    where = ["cache", "--cache_dir", str(tmp_path)]
    assert main(where) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names) and "vit on 30 rows, seed 1" in out and "still remembers" in out
    assert main([*where, "--clear", "nothing"]) == 2 and "no such entry" in capsys.readouterr().err
    assert main([*where, "--clear", names[0]]) == 0
    assert [entry.folder.name for entry in entries(tmp_path)] == names[1:]
    assert main([*where, "--clear"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
