import copy

import numpy as np
import pytest
import torch
from toy import image_setup, lm_setup, text_setup, vit
from transformers import AutoConfig, AutoModelForImageClassification, BertConfig, PreTrainedModel

from hf_unlearn import NablaTauConfig, NablaTauTrainer
from hf_unlearn.models.lora import add_lora
from hf_unlearn.trainers import proxy_source
from hf_unlearn.trainers.proxies import find_blocks, has_token_table, make_proxy
from hf_unlearn.trainers.proxy_source import Proxy
from hf_unlearn.trainers.target_sources import Said


def kept(model, proxy):
    """Names of the weights that were not drawn anew (constant ones tell nothing)."""
    pairs = zip(model.named_parameters(), proxy.parameters(), strict=True)
    return {name for (name, ours), theirs in pairs if ours.std() > 0 and torch.equal(ours, theirs)}


def test_a_vit_keeps_its_embeddings_and_lowest_quarter():
    model = vit(layers=4)
    names = kept(model, make_proxy(model, seed=1))
    assert {name.split(".")[2] for name in names if name.startswith("vit.layers.")} == {"0"}
    assert "vit.embeddings.position_embeddings" in names and "classifier.weight" not in names


def test_it_leaves_the_model_and_the_generators_alone():
    model = vit(layers=4)
    before = [p.clone() for p in model.parameters()]
    state = torch.random.get_rng_state()
    first, second, other = make_proxy(model, 1), make_proxy(model, 1), make_proxy(model, 2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("setup", [text_setup, lm_setup])
def test_a_model_of_tokens_starts_where_its_recipe_started(setup):
    model, _, _ = setup()
    assert has_token_table(model) and not has_token_table(vit())

    def start(seed):
        torch.manual_seed(seed)
        return type(model)(model.config)

    proxy = make_proxy(model, 5, start)
    assert not kept(model, proxy)
    assert all(torch.equal(a, b) for a, b in zip(proxy.parameters(), start(5).parameters(), strict=True))


def test_pixels_keep_the_lowest_quarter_even_where_the_start_is_known():
    model = vit(layers=4)
    proxy = make_proxy(model, 1, lambda seed: vit(layers=4, seed=9))
    assert "vit.embeddings.patch_embeddings.projection.weight" in kept(model, proxy)


def test_a_tied_head_keeps_its_table_and_an_adapter_is_merged():
    model, _, _ = lm_setup()
    model.config.tie_word_embeddings = True
    tied = type(model)(model.config)
    proxy = make_proxy(tied, 1)
    assert torch.equal(proxy.lm_head.weight, tied.get_input_embeddings().weight)
    image, _, _ = image_setup()
    adapted = add_lora(image, r=2, alpha=4, dropout=0.0, task_type=None)
    assert not hasattr(make_proxy(adapted, 1), "peft_config")


def test_convolutional_models_have_blocks_too():
    config = AutoConfig.for_model("convnext", hidden_sizes=[8, 16], depths=[2, 2], num_stages=2)
    model = AutoModelForImageClassification.from_config(config)
    assert find_blocks(model)[0] == "convnext.encoder.stages"
    assert make_proxy(model, 1)(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 2)


class Bare(PreTrainedModel):
    """No block at all."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(4, 4)


def test_one_block_is_forgotten_and_none_is_no_error():
    model = vit(layers=1)
    names = kept(model, make_proxy(model, 1))
    assert "vit.embeddings.position_embeddings" in names and not [n for n in names if n.startswith("vit.layers.")]

    class Sequence(vit(layers=1).__class__):
        """The blocks in a `Sequential`, as in timm."""

        def __init__(self, config):
            super().__init__(config)
            self.vit.layers = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(config.num_hidden_layers)))

    model = Sequence(vit(layers=4).config)
    assert find_blocks(model)[0] == "vit.layers" and len(find_blocks(model)[1]) == 4
    assert {name.split(".")[2] for name in kept(model, make_proxy(model, 1)) if ".layers." in name} == {"0"}
    assert not kept(Bare(BertConfig()), make_proxy(Bare(BertConfig()), 1))


@pytest.mark.parametrize("forget_loss", [0.1, 1.0])
def test_a_proxy_that_remembers_is_replaced_by_one_that_keeps_nothing(tmp_path, monkeypatch, forget_loss):
    model, splits, task = image_setup()
    args = NablaTauConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    trainer = NablaTauTrainer(model, args, splits, task, quiet=True)
    rng, seen = np.random.default_rng(0), []

    def look(rows, proxy, **asked):
        seen.append((proxy, rows))
        return Said(-rng.normal(forget_loss if rows is splits.forget else 1.0, 0.2, (len(rows), 1)).repeat(4, 1))

    monkeypatch.setattr(trainer, "look", look)
    monkeypatch.setattr(proxy_source, "train_proxy", lambda trainer, proxy, *_: proxy)
    asked = Proxy().ask(trainer)
    remembers = forget_loss == 0.1
    assert bool(kept(model, seen[-1][0])) == (not remembers)
    assert len([note for note in trainer.notes if "remember" in note]) == remembers
    # Each proxy looks at the rows once, for the check and for what it says.
    assert [rows for _, rows in seen] == [trainer.calibration_rows, splits.forget] * (1 + remembers)
    assert len(asked.forget.log_odds) == len(splits.forget)


def test_the_proxy_of_a_fresh_adapter_is_an_adapter_on_the_pretrained_start():
    """The frozen base costs no gradients and no optimizer; an adapter on weights from scratch would learn nothing."""
    model, _, _ = lm_setup()
    adapted = add_lora(model, r=2, alpha=4, dropout=0.0, target_modules=["q_proj"], task_type="CAUSAL_LM")

    def start(seed, name="base"):
        torch.manual_seed(seed)
        made = type(model)(copy.deepcopy(model.config))
        made.config._name_or_path = name
        return made

    proxy, again = make_proxy(adapted, 5, start), make_proxy(adapted, 5, start)
    assert {name.split(".")[-3] for name, p in proxy.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    assert proxy.peft_config["default"].r == 2
    with proxy.disable_adapter():
        ids = torch.arange(5, 12)[None]
        assert torch.equal(proxy.eval()(ids).logits, start(5).eval()(ids).logits)
    pairs = zip(proxy.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not hasattr(make_proxy(adapted, 5, lambda seed: start(seed, "")), "peft_config")
