"""Recipes that train an adapter on a base, in parts of a step, and recipes that a given adapter describes."""

import pytest
import torch
from toy import lm_setup

from hf_unlearn.data.build import training_rows
from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.run.loading import build_start, complete_recipe
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.run.recipe import Recipe, train_recipe
from hf_unlearn.saliency.lora_rows import is_fresh


@pytest.fixture
def base(tmp_path):
    model, splits, task = lm_setup()
    model.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base"), splits, task


def make(base, tmp_path, seed=0, **values):
    name, splits, task = base
    recipe = Recipe(model=name, batch_size=8, num_train_epochs=1, learning_rate=1e-2, **values)
    rows, cache = training_rows(splits), tmp_path / "cache"
    return train_recipe(recipe, task, rows, seed, cache_dir=cache, use_cpu=True)


def logits(model):
    return model.eval()(torch.arange(5, 12)[None]).logits


def test_an_original_and_its_twins_are_adapters_on_the_same_base(base, tmp_path):
    first = make(base, tmp_path, use_peft=True, lora_r=2, lora_target_modules=("q_proj", "v_proj"))
    start = logits(lm_setup()[0])
    assert lora.came_with_adapter(first.model) and not torch.allclose(logits(first.model), start)
    with first.model.disable_adapter():
        assert torch.equal(logits(first.model), start)
    with lora.reference_model(first.model) as original:
        assert torch.equal(logits(original), logits(first.model))
    again = make(base, tmp_path, use_peft=True, lora_r=2, lora_target_modules=("q_proj", "v_proj"))
    assert again.cached and torch.allclose(logits(again.model), logits(first.model), atol=1e-6)
    twin = make(base, tmp_path, seed=1, use_peft=True, lora_r=2, lora_target_modules=("q_proj", "v_proj"))
    with twin.model.disable_adapter():
        assert torch.equal(logits(twin.model), start)
    folder = next((tmp_path / "cache").glob("*/adapter_config.json")).parent
    assert lora.recipe_of(str(folder)) == {
        "model": base[0], "lora_r": 2, "lora_alpha": 16, "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip


def test_in_mixed_precision_an_adapter_says_the_same_from_the_cache(base, tmp_path):
    first, again = (make(base, tmp_path, use_peft=True, lora_r=2, bf16=True) for _ in range(2))
    assert again.cached and torch.allclose(logits(again.model), logits(first.model), atol=1e-6)


def test_what_is_looked_at_before_the_training_is_no_fresh_adapter(base, tmp_path):
    """Methods that refuse a fresh one (SSD, MSG), masks and proxies are planned as for the trained original."""
    argv = ["--original_model", base[0], "--original_use_peft", "--use_cpu", "--method", "ssd"]
    start = build_start(arguments(tmp_path, *argv), base[2], seed=0)
    assert lora.came_with_adapter(start) and not lora.is_fresh(start) and not is_fresh(start)
    trained = make(base, tmp_path, use_peft=True).model
    shapes = [{name: (p.shape, p.requires_grad) for name, p in model.named_parameters()} for model in (start, trained)]
    assert shapes[0] == shapes[1]


def test_a_step_is_the_same_in_parts_and_with_recomputation(base, tmp_path):
    whole = make(base, tmp_path)
    parts = make(base, tmp_path, gradient_accumulation_steps=2, gradient_checkpointing=True)
    assert torch.allclose(logits(whole.model), logits(parts.model), atol=2e-3)
    with pytest.raises(UserError, match="does not divide"):
        make(base, tmp_path, gradient_accumulation_steps=3)


def arguments(tmp_path, *argv):
    return parse_arguments(["--dataset_name", "digits", "--output_dir", str(tmp_path), *argv])


def test_a_given_adapter_describes_its_recipe(base, tmp_path):
    model = lora.add_lora(lm_setup()[0], r=3, alpha=5, dropout=0.1, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model.peft_config["default"].base_model_name_or_path = base[0]
    model.save_pretrained(tmp_path / "adapter")
    given = ["--model_name_or_path", str(tmp_path / "adapter")]
    found = arguments(tmp_path, *given, "--retrain", "1")
    complete_recipe(found)
    recipe = Recipe.from_arguments(found.recipe, "float32")
    assert (recipe.model, recipe.use_peft, recipe.lora_r, recipe.lora_alpha) == (base[0], True, 3, 5)
    assert recipe.lora_target_modules == ("q_proj",)
    untouched = arguments(tmp_path, *given)
    complete_recipe(untouched)
    assert not untouched.has_recipe
    with pytest.raises(UserError, match="leave --original_model out"):
        complete_recipe(arguments(tmp_path, *given, "--original_use_peft", "--original_model", "another"))
    with pytest.raises(UserError, match="adapts a base"):
        Recipe.from_arguments(
            arguments(tmp_path, "--original_use_peft", "--original_model_type", "llama").recipe, "float32"
        )
