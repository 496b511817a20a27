"""What is refused of quantized bases and devices, before any work is done."""

import importlib.util

import pytest
import torch
from toy import lm_setup

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.run.checks import check
from hf_unlearn.run.loading import load_options, merge_unquantized, placed
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.run.stages import _with_adapter


def arguments(tmp_path, *argv):
    return parse_arguments(["--dataset_name", "digits", "--output_dir", str(tmp_path / "out"), *argv])


@pytest.fixture
def installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "bitsandbytes" else find(name))


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--model_name_or_path", "base"], "quantized weights cannot be trained; add --use_peft"),
        (["--model_name_or_path", "base", "--use_peft"], "add --save_adapter"),
        (["--model_name_or_path", "base", "--use_peft"], "or --merge_unquantized"),
        (["--model_name_or_path", "base", "--save_adapter", "--use_peft", "--merge_unquantized"], "keeps the adapter"),
        (["--original_model", "base", "--use_peft"], "add --original_use_peft"),
        (["--model_name_or_path", "base", "--load_in_8bit"], "exclude each other"),
    ],
)
def test_a_quantized_base_is_trained_through_an_adapter_that_stays_apart(
    tmp_path, installed, monkeypatch, argv, words
):
    monkeypatch.setattr(lora, "is_adapter_folder", lambda name: False)
    with pytest.raises(UserError, match=words):
        check(arguments(tmp_path, "--load_in_4bit", *argv))


def test_a_base_that_was_saved_quantized_takes_no_merge(tmp_path):
    model, _, task = lm_setup()
    model.is_quantized = True
    for argv, words in (([], "cannot be trained"), (["--use_peft"], "no adapter can be merged into it")):
        with pytest.raises(UserError, match=words):
            _with_adapter(arguments(tmp_path, *argv), task, model)
    assert lora.is_peft(_with_adapter(arguments(tmp_path, "--use_peft", "--save_adapter"), task, model))


def test_bitsandbytes_is_asked_for(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(UserError, match="--load_in_8bit needs the package bitsandbytes"):
        check(arguments(tmp_path, "--model_name_or_path", "base", "--load_in_8bit"))


def test_a_device_map_is_for_one_process(tmp_path, monkeypatch):
    parsed = arguments(tmp_path, "--model_name_or_path", "base", "--device_map", "auto")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        check(parsed)


def test_how_a_base_is_loaded(tmp_path):
    options = load_options(arguments(tmp_path, "--load_in_4bit", "--device_map", "auto"))
    config = options["quantization_config"]
    assert options["device_map"] == "auto"
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == (
        True,
        "nf4",
        torch.bfloat16,
    )


def test_an_adapter_goes_into_its_base_in_full_width(tmp_path):
    """What was trained on the base in four bits is merged into the base as it is saved."""
    model, _, task = lm_setup()
    model.save_pretrained(tmp_path / "base")
    base = type(model).from_pretrained(tmp_path / "base")
    trained = lora.add_lora(base, r=2, alpha=4, dropout=0.0, task_type="CAUSAL_LM")
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            parameter.add_(0.1 if "lora_" in name else 0.01)  # the base is off, as a quantized one is
    merged = merge_unquantized(arguments(tmp_path, "--load_in_4bit"), task, trained)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_" not in name:
                parameter.sub_(0.01)
    for ours, theirs in zip(merged.parameters(), lora.merge(trained).parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_model_that_was_placed_stays_there():
    model = lm_setup()[0]
    model.to = None  # a call would fail
    model.hf_device_map = {"": "cpu"}
    assert placed(model, torch.device("cpu")) is model


def test_names_from_elsewhere_are_understood(tmp_path):
    with pytest.raises(UserError, match="it is called --dtype here"):
        arguments(tmp_path, "--torch_dtype", "auto")
