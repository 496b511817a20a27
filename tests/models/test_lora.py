"""Adapters on tiny models of every architecture with defaults: targets, saving, merging, the original inside."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    DeiTConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ResNetConfig,
    RobertaConfig,
    ViTConfig,
)

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora, lora_targets
from hf_unlearn.tasks import get_task

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VOCAB = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {**SIZE, "image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 3}
TEXT = {**VOCAB, **SIZE, "num_labels": 3}
LLAMA = {**VOCAB, **SIZE, "num_key_value_heads": 1, "num_labels": 3}
GPT2 = {**VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 3}
BERT_TARGETS = {"query", "key", "value", "intermediate.dense", "output.dense"}
LLAMA_TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
VIT_TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}
DISTIL_TARGETS = {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}
DISTIL = {**VOCAB, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "num_labels": 3}

DEIT = DeiTConfig(architectures=["DeiTForImageClassification"], **IMAGE)
DISTIL_HEAD = ["pre_classifier", "classifier"]

# task, configuration, targets, head
CASES = {
    "vit": ("image_classification", ViTConfig(**IMAGE), VIT_TARGETS, ["classifier"]),
    "deit": ("image_classification", DEIT, VIT_TARGETS, ["classifier"]),
    "bert": ("text_classification", BertConfig(**TEXT), BERT_TARGETS, ["classifier"]),
    "distilbert": ("text_classification", DistilBertConfig(**DISTIL), DISTIL_TARGETS, DISTIL_HEAD),
    "roberta": ("text_classification", RobertaConfig(**TEXT), BERT_TARGETS, ["classifier"]),
    "gpt2": ("causal_lm", GPT2Config(**GPT2), {"c_attn", "c_proj", "c_fc"}, []),
    "gpt2_classifier": ("text_classification", GPT2Config(**GPT2), {"c_attn", "c_proj", "c_fc"}, ["score"]),
    "llama": ("causal_lm", LlamaConfig(**LLAMA), LLAMA_TARGETS, []),
    "llama_classifier": ("text_classification", LlamaConfig(**LLAMA), LLAMA_TARGETS, ["score"]),
}
AUTO = {
    "image_classification": AutoModelForImageClassification,
    "text_classification": AutoModelForSequenceClassification,
    "causal_lm": AutoModelForCausalLM,
}


def make(case):
    torch.manual_seed(0)
    task, config, _, _ = CASES[case]
    return AUTO[task].from_config(copy.deepcopy(config)).eval(), task


def inputs_for(task):
    generator = torch.Generator().manual_seed(5)
    if task == "image_classification":
        return {"pixel_values": torch.randn(3, 1, 8, 8, generator=generator)}
    ids = torch.randint(3, 60, (3, 7), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def adapted(model, task, **kwargs):
    return lora.add_lora(
        model, **{"r": 4, "alpha": 8, "dropout": 0.0, "task_type": get_task(task).peft_task_type, **kwargs}
    )


def train(model, inputs, steps=3):
    """A few steps on everything trainable, away from what the model says now."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        model(**inputs).logits.logsumexp(-1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("case", CASES)
def test_default_targets_are_the_backbone_and_the_head_is_saved(case):
    model, task = make(case)
    _, _, targets, heads = CASES[case]
    found = lora_targets.default_lora_targets(model)
    assert set(found) == targets
    assert lora_targets.default_modules_to_save(model) == heads

    backbone = model.base_model_prefix + "."
    linear = [n for n in lora_targets._linear_layers(model) if n.startswith(backbone) and "pooler" not in n]
    peft_model = adapted(model, task)
    layers = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
        for name, _ in peft_model.named_parameters()
        if ".lora_A." in name
    }
    assert layers == set(linear)
    trainable = {name for name, p in peft_model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save.default" in name for name in trainable)
    saved = {name.split(".")[2] for name in trainable if "modules_to_save" in name}
    assert saved == set(heads)


@pytest.mark.parametrize("case", CASES)
def test_original_save_reload_and_merge(case, tmp_path):
    """Fresh adapter: disabled it is the original; merged and saved it says the same; given again, its copy stays."""
    model, task = make(case)
    inputs = inputs_for(task)
    original = logits(model, inputs)
    model.save_pretrained(tmp_path / "base")
    model = AUTO[task].from_pretrained(tmp_path / "base")
    peft_model = adapted(model, task)
    train(peft_model, inputs)
    peft_model.eval()
    trained = logits(peft_model, inputs)
    assert not torch.allclose(trained, original, atol=1e-3)
    flags = [p.requires_grad for p in peft_model.parameters()]
    with lora.reference_model(peft_model):
        assert torch.equal(logits(peft_model, inputs), original)
    assert torch.equal(logits(peft_model, inputs), trained)
    assert [p.requires_grad for p in peft_model.parameters()] == flags

    peft_model.save_pretrained(tmp_path / "adapter", **lora.save_kwargs(peft_model))
    assert lora.is_adapter_folder(str(tmp_path / "adapter"))
    assert not lora.is_adapter_folder(str(tmp_path / "base"))

    merged = lora.merge(peft_model)
    assert torch.allclose(logits(merged, inputs), trained, atol=1e-5)
    assert torch.equal(logits(peft_model, inputs), trained)  # merging a copy
    merged.save_pretrained(tmp_path / "merged")
    assert not lora.is_adapter_folder(str(tmp_path / "merged"))
    again = AUTO[task].from_pretrained(tmp_path / "merged").eval()
    assert torch.equal(logits(again, inputs), logits(merged, inputs))

    given_adapter_stays(tmp_path, task, inputs, trained)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", ["lm_head", "embed_tokens"]], ids=str)
def test_an_adapter_of_a_shared_weight_is_merged_into_its_own_layer_alone(tmp_path, target):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA, tie_word_embeddings=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    targets = ["q_proj", *([target] if isinstance(target, str) else target)]
    options = {"r": 2, "alpha": 4, "dropout": 0.0, "task_type": "CAUSAL_LM"}
    peft_model = lora.add_lora(model, target_modules=targets, **options)
    inputs = inputs_for("causal_lm")
    train(peft_model, inputs)
    trained = logits(peft_model.eval(), inputs)
    merged = lora.merge(peft_model)
    assert torch.allclose(logits(merged, inputs), trained, atol=1e-5)
    assert torch.equal(logits(peft_model, inputs), trained)
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.config.tie_word_embeddings
    merged.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again, inputs), logits(merged, inputs))


def given_adapter_stays(folder, task, inputs, given):
    torch.manual_seed(3)
    peft_model = lora.load_adapter_model(str(folder / "adapter"), AUTO[task]).eval()
    assert torch.equal(logits(peft_model, inputs), given)
    trainable = {name for name, p in peft_model.named_parameters() if p.requires_grad}
    assert trainable
    assert not any("reference" in name for name in trainable)
    train(peft_model, inputs)
    moved = logits(peft_model, inputs)
    assert not torch.allclose(moved, given, atol=1e-3)
    with lora.reference_model(peft_model):
        assert torch.equal(logits(peft_model, inputs), given)
    assert torch.equal(logits(peft_model, inputs), moved)
    assert {name for name, p in peft_model.named_parameters() if p.requires_grad} == trainable

    peft_model.save_pretrained(folder / "second", **lora.save_kwargs(peft_model))
    assert not (folder / "second" / "reference").exists()
    second = lora.load_adapter_model(str(folder / "second"), AUTO[task]).eval()
    assert torch.equal(logits(second, inputs), moved)
    merged = lora.merge(peft_model, in_place=True)
    assert torch.allclose(logits(merged, inputs), moved, atol=1e-5)
    assert not any("lora" in name or "reference" in name for name, _ in merged.named_parameters())


def test_reference_adapter_draws_no_random_numbers():
    model, task = make("bert")
    peft_model = adapted(model, task)
    state = torch.get_rng_state()
    lora.add_reference_adapter(peft_model)
    assert torch.equal(torch.get_rng_state(), state)


def test_reference_under_ddp_like_wrapper_and_after_an_error():
    model, task = make("vit")
    peft_model = adapted(model, task)
    next(p for p in peft_model.parameters() if p.requires_grad).requires_grad_(False)
    lora.add_reference_adapter(peft_model)
    trainable = [name for name, p in peft_model.named_parameters() if p.requires_grad]
    with pytest.raises(RuntimeError), lora.reference_model(torch.nn.DataParallel(peft_model)):
        raise RuntimeError
    assert peft_model.active_adapter == "default"
    assert [name for name, p in peft_model.named_parameters() if p.requires_grad] == trainable


def test_no_reference_without_an_adapter():
    model, _ = make("vit")
    assert lora.save_kwargs(model) == {}
    with pytest.raises(ValueError, match="no adapter"), lora.reference_model(model):
        pass


def test_targets_that_match_nothing_name_the_layers_that_exist():
    model, task = make("vit")
    with pytest.raises(UserError, match=r"'query' matches no layer.*q_proj, k_proj.*classifier"):
        adapted(model, task, target_modules=["q_proj", "query"])
    with pytest.raises(UserError, match="matches no layer"):
        adapted(model, task, target_modules=r".*\.query")
    with pytest.raises(UserError, match=r"consists of vit, classifier"):
        adapted(model, task, modules_to_save=["score"])
    with pytest.raises(UserError, match="linear layers are"):
        adapted(model, task, target_modules=["layernorm_before"])
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)
    with pytest.raises(UserError, match="no linear layers"):
        adapted(AutoModelForImageClassification.from_config(config), task)


@pytest.mark.parametrize("case", ["vit", "distilbert", "bert"])
def test_own_targets(case):
    """`all-linear` means the defaults; a head that is adapted is not also saved in full."""
    model, task = make(case)
    assert "modules_to_save" in str(adapted(model, task, target_modules=["all-linear"]).state_dict().keys())
    model, _ = make("vit")
    peft_model = adapted(model, "image_classification", target_modules=["q_proj", "classifier"])
    assert any("classifier.lora_A" in name for name, _ in peft_model.named_parameters())
    peft_model = adapted(make("vit")[0], "image_classification", target_modules=r".*\.(q_proj|v_proj)")
    assert sum("lora_A" in name for name, _ in peft_model.named_parameters()) == 4


def test_adapter_on_a_head_of_other_size(tmp_path):
    model, task = make("bert")
    model.save_pretrained(tmp_path / "base")
    config = copy.deepcopy(CASES["bert"][1])
    config.num_labels = 5
    wide = AutoModelForSequenceClassification.from_config(config)
    wide.name_or_path = str(tmp_path / "base")
    adapted(wide, task).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="does not fit"):
        lora.load_adapter_model(str(tmp_path / "adapter"), AUTO[task])
    loaded = lora.load_adapter_model(str(tmp_path / "adapter"), AUTO[task], num_labels=5)
    assert logits(loaded, inputs_for(task)).shape == (3, 5)


def test_description():
    model, task = make("vit")
    assert not lora.is_peft(model)
    peft_model = adapted(model, task, target_modules=["v_proj", "q_proj"])
    assert lora.is_peft(torch.nn.DataParallel(peft_model))
    assert lora.describe(peft_model) == {
        "type": "lora",
        "r": 4,
        "alpha": 8,
        "dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "modules_to_save": ["classifier"],
        "given": False,
    }


def test_missing_base(tmp_path):
    model, task = make("bert")
    model.name_or_path = str(tmp_path / "gone")
    adapted(model, task).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="cannot load .*gone"):
        lora.load_adapter_model(str(tmp_path / "adapter"), AUTO[task])


def test_supervised_head_under_an_adapter():
    """Token logits of an adapted model, in both states, are those of its full forward."""
    model, _ = make("llama")
    peft_model = adapted(model, "causal_lm")
    train(peft_model, inputs_for("causal_lm"))
    ids = inputs_for("causal_lm")["input_ids"]
    labels = ids.clone()
    labels[:, :4] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    task = get_task("causal_lm")(None, {"text": "text"})
    for _ in range(2):
        predictions = task.predict(peft_model, batch)
        full = peft_model(input_ids=ids).logits[:, 3:-1].reshape(-1, 60)
        assert torch.allclose(predictions.logits, full, atol=1e-5)
        with lora.reference_model(peft_model):
            assert not torch.allclose(task.predict(peft_model, batch).logits, full, atol=1e-3)


def test_a_proxy_adapter_costs_no_copy_and_leaves_nothing_behind():
    model, task_name = make("llama")
    model = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=get_task(task_name).peft_task_type)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    lora.add_reference_adapter(model)
    ids = torch.arange(6)[None]
    given, before, state = model(ids).logits, torch.get_rng_state(), copy.deepcopy(model.state_dict())
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    with lora.proxy_adapter(model, seed=3) as proxy:
        assert torch.equal(before, torch.get_rng_state())
        with model.disable_adapter():
            base = model(ids).logits
        assert torch.equal(proxy(ids).logits, base) and not torch.equal(base, given)
        moving = [p for p in proxy.parameters() if p.requires_grad]
        assert len(moving) == len(trainable)
        for parameter in moving:
            parameter.data.add_(1.0)
        assert not torch.equal(proxy(ids).logits, base)
    assert torch.equal(model(ids).logits, given)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    now = model.state_dict()
    assert now.keys() == state.keys() and all(torch.equal(now[name], state[name]) for name in state)


def test_a_model_that_works_with_another_adapter_is_refused(tmp_path):
    """Its steps would move that one, and what is saved is the one called default."""
    import toy
    from peft import LoraConfig, get_peft_model

    from hf_unlearn.methods.gradient_difference import GradDiffConfig, GradDiffTrainer

    def trainer(*active: str) -> GradDiffTrainer:
        model, splits, task = toy.lm_setup()
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]), adapter_name=active[0])
        for name in {"default", *active} - {active[0]}:
            model.add_adapter(name, LoraConfig(r=2, target_modules=["v_proj"]))
        model.base_model.set_adapter(list(active))
        return GradDiffTrainer(model, GradDiffConfig(output_dir=str(tmp_path), use_cpu=True), splits, task)

    trainer("default")
    for active in (("other",), ("default", "other"), ("other", "default")):
        with pytest.raises(UserError, match="works with the adapter .*'other'.* is called 'default'"):
            trainer(*active)
