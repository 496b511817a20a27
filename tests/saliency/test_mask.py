"""Masks in words, in files and in checkpoints; and what a file is refused for."""

import json

import pytest
import torch
import toy
from safetensors.torch import load_file, save_file

from hf_unlearn.errors import UserError
from hf_unlearn.saliency.build import build_mask
from hf_unlearn.saliency.mask import FORMAT, SaliencyMask, model_digest
from hf_unlearn.saliency.packed_masks import PackedMasks, pack, unpack


def built(**more):
    model, splits, task = toy.image_setup()
    return build_mask(model, task, splits.forget, **{"share": 0.3, "forget_digest": "f" * 64, **more}), model


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) and b[name].dtype == torch.bool for name in a)


@pytest.mark.parametrize("shape", [(), (1,), (8,), (9,), (3, 5, 7), (0, 3)])
def test_packing_is_undone(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    bits = pack(mask)
    assert bits.dtype == torch.uint8 and len(bits) == (mask.numel() + 7) // 8
    assert torch.equal(unpack(bits, shape), mask)
    assert torch.equal(
        pack(mask.t() if mask.dim() == 2 else mask), pack(mask.t().contiguous() if mask.dim() == 2 else mask)
    )


def test_build_keeps_the_share_and_says_so():
    mask, model = built()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert mask.kept == int(0.3 * total + 0.5) == sum(int(m.sum()) for m in mask.masks.values())
    assert mask.size == total and abs(mask.kept_share - 0.3) < 1e-3 and mask.threshold > 0
    assert list(mask.masks) == [name for name, _ in model.named_parameters()]
    most = max(mask.counts, key=mask.counts.get)
    first, second = mask.summary().split("\n")
    assert first.startswith(f"{mask.kept:,} of {total:,} trainable weights may move (30.0%, saliency ≥ ")
    assert second.startswith(f"most of them in {most} {mask.counts[most]:,} of ")


def test_weights_without_saliency_are_told():
    model, splits, task = toy.lm_setup()  # tokens that no row holds have no gradient
    assert "threshold is 0" in build_mask(model, task, splits.forget, share=1.0).summary()
    assert "threshold is 0" not in build_mask(model, task, splits.forget, share=0.3).summary()


def test_no_gradient_at_all_is_no_mask():
    model, splits, task = toy.image_setup()
    with pytest.raises(UserError, match="no trainable weight any gradient"):
        build_mask(model, task, splits.forget, loss=lambda p: 0 * p.loss)


@pytest.mark.parametrize("kind", list(toy.SETUPS))
def test_file_and_checkpoint_give_the_mask_back(kind, tmp_path):
    model, splits, task = toy.SETUPS[kind]()
    mask = build_mask(model, task, splits.forget, share=0.3, exclude=["*embed*"], forget_digest="f" * 64)
    path = str(tmp_path / "mask.safetensors")
    mask.save(path)
    loaded = SaliencyMask.load(path, model, forget_digest="f" * 64)
    assert equal(mask.masks, loaded.masks)
    tensors = mask.to_tensors()
    assert all(value.dtype == torch.uint8 for value in tensors.values())
    restored = SaliencyMask.from_tensors({"side_examples": torch.zeros(()), **tensors}, model)
    assert equal(mask.masks, restored.masks)
    for other in (loaded, restored):
        for name in ("threshold", "share", "scope", "include", "exclude", "model_digest", "forget_digest", "notes"):
            assert getattr(other, name) == getattr(mask, name)
        assert other.summary() == mask.summary()
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "mask.safetensors").stat().st_size < weights / 8 + 300 * len(mask.masks)


def test_a_resumed_model_has_other_weights():
    mask, model = built()
    tensors = mask.to_tensors()
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert equal(SaliencyMask.from_tensors(tensors, model).masks, mask.masks)


def test_a_mask_in_bits_is_the_same_mask():
    mask, model = built()
    before, summary, tensors = dict(mask.masks), mask.summary(), mask.to_tensors()
    mask.shrink()
    assert isinstance(mask.masks, PackedMasks) and list(mask.masks) == list(before) and equal(mask.masks, before)
    assert all(m.device == before[name].device and m.dtype == torch.bool for name, m in mask.masks.items())
    assert mask.summary() == summary
    assert all(torch.equal(bits, tensors[name]) for name, bits in mask.to_tensors().items())


def test_what_is_not_this_mask_is_refused(tmp_path):
    mask, model = built()
    path = str(tmp_path / "mask.safetensors")
    mask.save(path)

    def refused(match, path=path, model=model, **more):
        with pytest.raises(UserError, match=match) as caught:
            SaliencyMask.load(path, model, **more)
        assert "\n" not in str(caught.value)

    SaliencyMask.load(path, model)
    refused("no saliency mask", path=str(tmp_path / "none.safetensors"))
    (tmp_path / "text").write_text("no mask")
    refused("is no saliency mask", path=str(tmp_path / "text"))
    refused("is no saliency mask", path=str(tmp_path))
    save_file({"x": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    refused("is no saliency mask", path=str(tmp_path / "other.safetensors"))
    refused("does not fit", model=toy.vit(layers=1))
    refused("other forget rows", forget_digest="0" * 64)
    refused("does not fit .*pooled", model=wider(toy.vit()))
    with torch.no_grad():
        model.classifier.bias[1] += 1e-6
    refused("other weights")


def wider(model):
    model.pooled = torch.nn.Parameter(torch.zeros(2))
    return model


def test_damage_is_seen(tmp_path):
    mask, model = built()
    path = str(tmp_path / "mask.safetensors")
    mask.save(path)
    packed, header = load_file(path), mask._header()

    def write(packed, **changes):
        save_file(packed, path, metadata={"format": FORMAT, "header": json.dumps(header | changes)})

    write({name: bits for name, bits in packed.items() if name != "classifier.weight"})
    with pytest.raises(UserError, match="damaged"):
        SaliencyMask.load(path, model)
    write(packed | {"classifier.weight": packed["classifier.weight"] ^ 1})
    with pytest.raises(UserError, match="damaged"):
        SaliencyMask.load(path, model)
    write(packed, version=2)
    with pytest.raises(UserError, match="unknown version"):
        SaliencyMask.load(path, model)


def test_a_folder_that_is_not_there():
    mask, _ = built()
    with pytest.raises(UserError, match="cannot write"):
        mask.save("/nowhere/at/all/mask.safetensors")
    with pytest.raises(UserError, match="holds no saliency mask"):
        SaliencyMask.from_tensors({}, toy.vit())


def test_digest_is_of_names_types_shapes_and_bytes():
    digest = model_digest(toy.vit())
    assert digest == model_digest(toy.vit()) == model_digest(torch.nn.DataParallel(toy.vit()))
    others = [toy.vit(seed=1), toy.vit(dtype=torch.bfloat16), toy.vit(layers=1)]
    flipped = toy.vit()
    with torch.no_grad():
        flipped.classifier.bias[0] = -0.0 if flipped.classifier.bias[0] == 0 else 1.0
    renamed = toy.vit()
    renamed.head = renamed._modules.pop("classifier")
    assert len({digest, *map(model_digest, [*others, flipped, renamed])}) == 6


@pytest.mark.parametrize("wrong", [{"share": 2.0}, {"scope": "layer"}, {"include": ["*.wieght"]}])
def test_mistakes_are_told_before_rows_are_read(wrong):
    model, _, task = toy.image_setup()
    with pytest.raises(UserError):
        build_mask(model, task, None, **wrong)
