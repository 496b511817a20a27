"""Error-maximizing noise: it reaches every architecture, leaves no trace, and is what its name says."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from toy import image_setup, text_setup, tokenizer

from hf_unlearn.errors import UserError
from hf_unlearn.models import lora
from hf_unlearn.models.noise import (
    ErrorMaximizingNoise,
    captured,
    find_space,
    free_places,
    injected,
    input_module,
)
from hf_unlearn.tasks import get_task

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 4}
IMAGE = {"image_size": 16, "patch_size": 4, "num_channels": 1}
TEXT = {"vocab_size": 20, "pad_token_id": 0}
MODELS = {
    "ViT": transformers.ViTConfig(**SMALL, **IMAGE),
    "DeiT": transformers.DeiTConfig(**SMALL, **IMAGE, architectures=["DeiTForImageClassification"]),
    "Swin": transformers.SwinConfig(
        image_size=16, patch_size=2, num_channels=1, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2,
        num_labels=4,
    ),
    "ResNet": transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=4
    ),
    "ConvNeXt": transformers.ConvNextConfig(
        num_channels=1, hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, num_labels=4
    ),
    "BERT": transformers.BertConfig(**SMALL, **TEXT),
    "DistilBERT": transformers.DistilBertConfig(**TEXT, dim=16, n_layers=2, n_heads=2, hidden_dim=16, num_labels=4),
    "RoBERTa": transformers.RobertaConfig(**SMALL, **TEXT),
    "GPT-2": transformers.GPT2Config(**TEXT, n_embd=16, n_layer=2, n_head=2, num_labels=4),
    "Llama": transformers.LlamaConfig(**SMALL, **TEXT, num_key_value_heads=2),
}  # fmt: skip
PIXELS_ONLY = {"ResNet", "ConvNeXt"}
IMAGES = {"ViT", "DeiT", "Swin"} | PIXELS_ONLY


def build(name, adapter=False):
    torch.manual_seed(0)
    config = copy.deepcopy(MODELS[name])
    auto = "AutoModelForImageClassification" if name in IMAGES else "AutoModelForSequenceClassification"
    model = getattr(transformers, auto).from_config(config).eval()
    labels = ["a", "b", "c", "d"]
    if name in IMAGES:
        processor = transformers.ViTImageProcessor(image_mean=[0.5], image_std=[0.5], do_resize=False)
        task = get_task("image_classification")(processor, {"image": "image", "label": "label"}, labels)
        pixels = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))
        batch = {"pixel_values": pixels, "labels": torch.tensor([0, 1, 2, 3, 0])}
    else:
        task = get_task("text_classification")(tokenizer(), {"text": "text", "label": "label"}, labels)
        model.config.id2label = dict(enumerate(labels))
        task.prepare_model(model)
        batch = text_batch(task)
    if adapter:
        model = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type).eval()
    return model, task, batch


def text_batch(task):
    ids = [[2, 5, 6, 7, 3], [2, 8, 3], [2, 9, 10, 11, 12, 13, 3], [2, 14, 5, 3], [2, 6, 7, 8, 3]]
    rows = [{"input_ids": torch.tensor(i), "attention_mask": torch.ones(len(i), dtype=torch.long)} for i in ids]
    return task.collate([row | {"labels": k % 4} for k, row in enumerate(rows)])


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_gives_gradients_to_the_noise(name, adapter):
    if adapter and name in PIXELS_ONLY:
        pytest.skip("convolutions are not LoRA's default targets")
    model, task, batch = build(name, adapter)
    space = find_space(model)
    assert space == ("pixels" if name in PIXELS_ONLY else "embeddings")
    state = ErrorMaximizingNoise.start(model, task, [batch], space, seed=0)
    noise = ErrorMaximizingNoise(state, task, space, penalty=0.0)
    before, weights = state["noise"].clone(), copy.deepcopy(model.state_dict())
    first = noise.step(model, [batch], 0, 0.05)
    for number in range(1, 6):
        last = noise.step(model, [batch], number, 0.05)
    assert last["loss"] > first["loss"]
    places = free_places(batch, task.processor)
    moved = (state["noise"] != before).flatten(2 if places is not None else 1).any(-1)
    # Each row of noise moves where it has places, and nowhere else.
    if places is None:
        assert moved.all()
    else:
        used = torch.arange(before.shape[1]) < places.sum(1, keepdim=True)
        assert torch.equal(moved, used) and used.sum(1).tolist() == [3, 1, 5, 2, 3]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and hooks(model) == 0


@pytest.mark.parametrize("name", ["BERT", "DistilBERT", "RoBERTa", "GPT-2", "Llama"])
def test_real_embeddings_put_back_give_the_real_logits(name):
    """Positions, padding, special tokens and the pooled token are those of the row that lends its structure."""
    model, task, batch = build(name)
    with torch.no_grad():
        real = task.predict(model, batch).logits
        places = free_places(batch, task.processor)[:3]
        values = torch.zeros(3, 5, 16)
        embeddings = input_module(model)(batch["input_ids"])
        for row in range(3):
            values[row, : places[row].sum()] = embeddings[row][places[row]]
        with injected(model, "embeddings", values, places):
            torch.testing.assert_close(task.predict(model, batch).logits, real)
        other = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
        with injected(model, "embeddings", other, places):
            changed = task.predict(model, batch).logits
    assert (changed[:3] != real[:3]).any(1).all()
    torch.testing.assert_close(changed[3:], real[3:])


def test_only_the_first_forward_inside_sees_it():
    model, task, batch = build("ViT")
    with torch.no_grad(), captured(model, "embeddings") as seen:
        real = task.predict(model, batch).logits
        with injected(model, "embeddings", torch.zeros_like(seen[0][:2])):
            assert not torch.allclose(task.predict(model, batch).logits[:2], real[:2])
            torch.testing.assert_close(task.predict(model, batch).logits, real)


@pytest.mark.parametrize("name", ["ViT", "ResNet"])
def test_the_hook_is_gone_after_an_exception(name):
    model, task, batch = build(name)
    for manager in (injected(model, find_space(model), torch.zeros(1)), captured(model, find_space(model))):
        with pytest.raises(RuntimeError), manager:
            raise RuntimeError
        assert hooks(model) == 0
    with torch.no_grad():
        task.predict(model, batch)


def test_pixels_are_an_option_where_there_are_embeddings_and_both_are_refused_where_they_are_not():
    model, task, batch = build("ViT")
    assert find_space(model, "pixels") == "pixels"
    state = ErrorMaximizingNoise.start(model, task, [batch], "pixels", seed=0)
    assert state["noise"].shape == (5, 1, 16, 16) and state["noise_mean"].shape == (1,)
    with pytest.raises(UserError, match="names none; use pixels"):
        find_space(build("ResNet")[0], "embeddings")
    with pytest.raises(UserError, match="reads no images"):
        find_space(build("BERT")[0], "pixels")


def test_the_start_has_the_scale_of_real_embeddings_dimension_by_dimension():
    model, splits, task = text_setup()
    batch = task.collate(splits.retain.__getitems__(range(30)))
    state = ErrorMaximizingNoise.start(model.eval(), task, [batch], "embeddings", seed=0)
    real = model.get_input_embeddings()(batch["input_ids"])[batch["attention_mask"].bool()]
    torch.testing.assert_close(state["noise_mean"], real.mean(0))
    torch.testing.assert_close(state["noise_std"], real.std(0))
    values = ErrorMaximizingNoise(state, task, "embeddings").values(slice(None))
    torch.testing.assert_close(values, state["noise_mean"] + state["noise_std"] * state["noise"])
    assert ErrorMaximizingNoise(state, task, "embeddings").norm_ratio([batch]) == pytest.approx(1, abs=0.1)


def test_the_objective_by_hand_and_the_steps_are_adam():
    """min −CE + λ·(3072/(L·D))·Σ((noise − μ)/σ)², independent of how the rows are cut into batches."""
    model, splits, task = image_setup(torch.float64)
    model.eval()
    batch = task.collate(splits.retain.__getitems__(range(6)))
    states = [ErrorMaximizingNoise.start(model, task, [batch], "embeddings", seed=3) for _ in range(2)]
    z = states[0]["noise"].clone().double().requires_grad_()
    mean, std = states[0]["noise_mean"], states[0]["noise_std"]
    optimizer = torch.optim.Adam([z], lr=0.1)
    parts = [{k: v[rows] for k, v in batch.items()} for rows in (slice(0, 4), slice(4, 6))]
    for number in range(4):
        optimizer.zero_grad()
        x = model.vit.embeddings.cls_token.expand(6, -1, -1), mean + std * z
        hidden = torch.cat(x, 1) + model.vit.embeddings.position_embeddings
        for layer in model.vit.layers:
            hidden = layer(hidden)
        logits = model.classifier(model.vit.layernorm(hidden)[:, 0])
        noise = mean + std * z
        size = z.shape[1] * z.shape[2]
        penalty = 0.1 * (3072 / size) * (((noise - mean) / std) ** 2).sum((1, 2)).mean()
        objective = penalty - F.cross_entropy(logits, batch["labels"])
        objective.backward()
        optimizer.step()
        for state, batches in zip(states, ([batch], parts), strict=True):
            figures = ErrorMaximizingNoise(state, task, "embeddings", 0.1).step(model, batches, number, 0.1)
            assert figures["objective"] == pytest.approx(objective.item(), rel=1e-4)
    for state in states:
        torch.testing.assert_close(state["noise"].double(), z.detach(), rtol=1e-3, atol=1e-4)


def digits():
    """Handwritten 0 to 3, in the toy's four classes."""
    from sklearn.datasets import load_digits

    model, _, task = image_setup()
    found = load_digits(n_class=4)
    images = torch.tensor(found.images, dtype=torch.float32)[:, None]
    return model, task, {"pixel_values": (images - 8) / 8, "labels": torch.tensor(found.target)}


def sentences():
    """Of ten words each, which of the first four is in it is the class."""
    model, _, task = text_setup()
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    ids = [
        np.r_[2, rng.permutation(np.r_[5 + label, rng.integers(9, 15, size=rng.integers(3, 7))]), 3]
        for label in labels
    ]
    rows = [{"input_ids": torch.tensor(i), "attention_mask": torch.ones(len(i), dtype=torch.long)} for i in ids]
    return model, task, task.collate([row | {"labels": int(k)} for row, k in zip(rows, labels, strict=True)])


# A model of 20 words is all but certain of anything, so random noise costs it much already.
@pytest.mark.parametrize("data, rate, rise", [(digits, 1e-2, 5.0), (sentences, 3e-3, 1.0)])
def test_a_trained_model_errs_more_than_on_random_noise_of_the_same_scale(data, rate, rise):
    model, task, rows = data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        some = torch.randperm(len(rows["labels"]), generator=generator)[:64]
        optimizer.zero_grad()
        task.predict(model, {k: v[some] for k, v in rows.items()}).loss.mean().backward()
        optimizer.step()
    model.eval()
    batch = {k: v[:32] for k, v in rows.items()} | {"labels": torch.arange(4).repeat_interleave(8)}
    state = ErrorMaximizingNoise.start(model, task, [batch], "embeddings", seed=0)
    noise = ErrorMaximizingNoise(state, task, "embeddings", penalty=1e-4)
    index = torch.arange(32)

    def losses():
        with torch.no_grad(), noise.inside(model, batch, index):
            return task.predict(model, batch).loss.view(4, 8).mean(1)

    for number in range(40):
        noise.step(model, [batch], number, 0.1)
    learned, ratio = losses(), noise.norm_ratio([batch])
    random = torch.randn(state["noise"].shape, generator=torch.Generator().manual_seed(9))
    state["noise"] = random * state["noise"].square().mean().sqrt()
    chance = losses()
    assert 0.5 < ratio < 2
    assert (learned > chance - 0.01).all()  # the noise of each class is about that class
    assert learned.mean() > chance.mean() + rise
