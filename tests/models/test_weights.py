"""What is loaded is whole, and what is trained can move."""

import json
import logging
from pathlib import Path

import pytest
import tiny
import torch
from toy import image_rows, image_setup, text_rows, text_setup, tokenizer, vit

from hf_unlearn import unlearn
from hf_unlearn.errors import UserError
from hf_unlearn.models.lora import add_lora
from hf_unlearn.models.weights import WIDENED, load_weights
from hf_unlearn.run.recipe import Recipe
from hf_unlearn.tasks import get_task
from hf_unlearn.train import main

QUICK = {"method": "fine_tune", "max_steps": 2, "use_cpu": True, "disable_tqdm": True, "forget": [1, 2]}


def bert(folder: Path, layers: int | None = None) -> Path:
    """A saved text classifier; `layers`: what its configuration says."""
    model, _, _ = text_setup()
    model.save_pretrained(folder)
    if layers:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    return folder


def test_missing_layers_are_refused_by_name(tmp_path):
    auto = get_task("text_classification").auto_model()
    whole = load_weights(auto, str(bert(tmp_path / "whole")))
    assert whole.config.num_hidden_layers == 2
    short = str(bert(tmp_path / "short", layers=3))
    with pytest.raises(UserError, match=r"short lacks \d+ of the weights .* bert.encoder.layer.2"):
        load_weights(auto, short)
    with pytest.raises(UserError, match="lacks"):
        load_weights(auto, short, is_base=True)


def test_the_new_head_of_a_base_is_no_news(tmp_path, monkeypatch):
    """transformers would tell of it in a table."""
    text_setup()[0].bert.save_pretrained(tmp_path)
    auto, logger = get_task("text_classification").auto_model(), logging.getLogger("transformers.modeling_utils")
    said = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logger, "handlers", [listener])
    auto.from_pretrained(str(tmp_path))
    assert len(said) == 1 and "classifier.weight" in said[0]
    load_weights(auto, str(tmp_path), is_base=True)
    assert len(said) == 1


def test_a_base_may_lack_its_head_and_have_other_classes(tmp_path):
    _, _, task = text_setup()
    whole = text_setup()[0]
    whole.base_model.save_pretrained(tmp_path / "base")
    auto = task.auto_model()
    with pytest.raises(UserError, match="classifier"):
        load_weights(auto, str(tmp_path / "base"), num_labels=4)
    assert Recipe(model=str(tmp_path / "base")).build_model(task, 0).config.num_labels == 4
    task.label_names = task.label_names[:3]
    assert Recipe(model=str(bert(tmp_path / "other"))).build_model(task, 0).config.num_labels == 3


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, capsys):
    config = tiny.own_data(tmp_path, "text_classification", processor_name_or_path=str(bert(tmp_path / "bare")))
    assert main(["--config", tiny.write_config(tmp_path, config), "--dry_run"]) == 2
    err = capsys.readouterr().err.strip()
    assert ("knows no word" in err or "no tokenizer" in err) and len(err.splitlines()) == 1


def test_adapters_start_from_a_seed():
    def start(seed: int, before: int):
        torch.manual_seed(before)
        model = add_lora(vit(), r=2, alpha=2, dropout=0.0, task_type=None, seed=seed)
        return next(p.clone() for name, p in model.named_parameters() if "lora_A" in name)

    model = vit()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    add_lora(model, r=2, alpha=2, dropout=0.0, task_type=None, seed=1)
    assert torch.equal(torch.rand(1), expected)  # nobody else's numbers change
    assert torch.equal(start(1, 2), start(1, 3)) and not torch.equal(start(1, 2), start(2, 2))


def test_narrow_weights_are_trained_wide_unless_that_is_asked_for():
    _, _, task = image_setup()
    rows = {"train": image_rows(40), "test": image_rows(24, seed=1)}
    model = vit(dtype=torch.bfloat16)
    model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
    result = unlearn(model, task.processor, rows, **QUICK)
    assert result.model.dtype == torch.float32 and WIDENED in result.evidence["notes"]
    result = unlearn(result.model.to(torch.bfloat16), task.processor, rows, dtype="auto", **QUICK)
    assert result.model.dtype == torch.bfloat16 and "16 bits are trained as they are" in " ".join(
        result.evidence["notes"]
    )
    with pytest.raises(UserError, match="dtype= is 'half'"):
        unlearn(model, task.processor, rows, dtype="half", **QUICK)


def test_an_adapter_is_wide_and_its_base_stays_as_it_is():
    from toy import lm_setup

    model, _, task = lm_setup(dtype=torch.bfloat16)
    rows = {"train": text_rows(40), "test": text_rows(24, seed=1)}
    result = unlearn(model, tokenizer(), rows, columns=task.columns, use_peft=True, **QUICK)
    trained = {p.dtype for p in result.trainer.model.parameters() if p.requires_grad}
    assert trained == {torch.float32} and result.model.dtype == torch.bfloat16
