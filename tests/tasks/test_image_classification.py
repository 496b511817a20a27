from io import BytesIO

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks import TASKS, get_task
from hf_unlearn.tasks.image_classification import ImageClassification

COLUMNS = {"image": "image", "label": "label"}
SIZE = {"height": 8, "width": 8}


def make_task(channels=3, names=("a", "b", "c")):
    half = [0.5] * channels
    processor = ViTImageProcessorPil(size=SIZE, image_mean=half, image_std=half)
    return ImageClassification(processor, COLUMNS, list(names))


def vit(channels=3, labels=3, **kwargs):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**small, image_size=8, patch_size=4, num_channels=channels, num_labels=labels, **kwargs)
    return ViTForImageClassification(config).eval()


def encode(task, images, labels=None):
    return task.encode({"image": images, "label": labels or [0] * len(images)}, list(range(10, 10 + len(images))))


def gradient(mode="L"):
    return Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert(mode)


def png(image):
    stream = BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_becomes_the_same_pixels(channels, tmp_path):
    gray = gradient()
    gray.save(tmp_path / "x.png")
    array = np.asarray(gray)
    images = [
        gray,
        gray.convert("RGB"),
        gray.convert("RGBA"),
        gray.convert("P"),
        array,
        array[None],
        array[:, :, None],
        array.astype(np.int64),
        array.astype(np.float32) / 255,
        array.tolist(),
        np.asarray(gray.convert("RGB")),
        {"bytes": png(gray), "path": None},
        {"bytes": None, "path": str(tmp_path / "x.png")},
        str(tmp_path / "x.png"),
        Image.fromarray(array.astype(np.uint16) * 256),
    ]
    features = encode(make_task(channels), images)
    expected = torch.tensor(array).float().div(255).sub(0.5).div(0.5).expand(channels, 8, 8)
    for row in features:
        assert row["pixel_values"].dtype == torch.float32
        torch.testing.assert_close(row["pixel_values"], expected, atol=1e-5, rtol=0)


CUT_OFF = png(Image.effect_noise((64, 64), 50))[:1000]
BROKEN = {"bytes": b"not an image", "path": None}


@pytest.mark.parametrize(
    "bad",
    [None, BROKEN, "/no/such/file.png", CUT_OFF, np.ones(3) * 300],
    ids=["none", "bytes", "path", "cut-off", "array"],
)
def test_an_unreadable_image_is_named_by_its_position(bad):
    with pytest.raises(RowError, match=r"^row 11: its image cannot be read$") as error:
        encode(make_task(), [gradient(), bad, gradient()])
    assert error.value.position == 11


def test_labels():
    task = make_task()
    features = encode(task, [gradient()] * 5, [2, "b", np.int64(1), 0.0, True])
    assert task.collate(features)["labels"].tolist() == [2, 1, 1, 0, 1]
    for bad in (None, -1, 3, "d", 0.5, float("nan")):
        with pytest.raises(RowError, match="row 10: .*label"):
            encode(task, [gradient()], [bad])


def test_columns():
    detect = ImageClassification.detect_columns
    assert detect(["img", "fine_label", "coarse_label"], None, {}) == {"image": "img", "label": "fine_label"}
    features = Features({"photo_of_it": ImageFeature(), "kind": ClassLabel(names=["a", "b"]), "id": Value("int64")})
    assert detect(list(features), features, {}) == {"image": "photo_of_it", "label": "kind"}
    assert detect(["image", "label", "y"], None, {"label": "y", "image": None})["label"] == "y"
    with pytest.raises(UserError, match=r"no column found for 'image'.*pixels_of, label"):
        detect(["pixels_of", "label"], None, {})
    with pytest.raises(UserError, match="no labels: put those of each class into a folder of its name"):
        ImageClassification.detect_columns(["image"], None, {})
    with pytest.raises(UserError, match=r"no column 'nope' in the data: it has image, label"):
        detect(["image", "label"], None, {"label": "nope"})
    with pytest.raises(UserError, match=r"no 'text' column: its columns are image, label"):
        detect(["image", "label"], None, {"text": "label"})
    with pytest.raises(UserError, match="no column found for 'label'"):
        detect(["image", "name"], None, {})


@pytest.mark.parametrize("model", [vit(), None], ids=["vit", "resnet"])
def test_losses_are_the_models_own(model):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)
    model = model or ResNetForImageClassification(config).eval()
    task = make_task()
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)) for i in range(4)]
    batch = task.collate(encode(task, images, [0, 1, 2, 1]))
    with torch.no_grad():
        predictions = task.predict(model, batch)
        torch.testing.assert_close(predictions.loss.mean(), model(**batch).loss)
        for i in range(4):
            one = {key: value[i : i + 1] for key, value in batch.items()}
            torch.testing.assert_close(predictions.loss[i], model(**one).loss, atol=1e-5, rtol=1e-5)
    embedded = task.embed(model, batch)
    assert embedded.shape[0] == 4
    assert embedded.dim() == 2
    assert len(embedded.unique(dim=0)) == 4


def test_models_that_do_not_fit_are_refused():
    task = make_task()
    task.prepare_model(vit())
    for model, message in (
        (vit(labels=5), "has 5 labels and the data 3"),
        (vit(labels=1), "regression"),
        (vit(problem_type="multi_label_classification"), "multi_label"),
        (vit(channels=1), "1 channels and its image processor gives 3"),
        (vit(id2label={0: "b", 1: "a", 2: "c"}), "another order: .* b, a, c"),
    ):
        with pytest.raises(UserError, match=message):
            task.prepare_model(model)


def test_processor_of_a_folder(tmp_path):
    make_task(1).processor.save_pretrained(tmp_path)
    assert list(ImageClassification.load_processor(str(tmp_path)).image_mean) == [0.5]
    with pytest.raises(UserError, match="no image processor at"):
        ImageClassification.load_processor(str(tmp_path / "empty"))


def test_task_names():
    assert [get_task(name).name for name in TASKS] == list(TASKS)
    assert get_task("causal-lm").name == "causal_lm"
    with pytest.raises(
        UserError, match="image_classification, text_classification, multilabel_text_classification, causal_lm"
    ):
        get_task("translation")
