"""Scikit-learn's handwritten digits: 1797 grey images of 8 by 8 pixels, ten classes."""

import numpy as np

from hf_unlearn.data.draws import draw
from hf_unlearn.data.sources import Source

TRAIN, VALIDATION, TEST = 1024, 280, 493  # training rows are whole batches of 64


def load(seed: int = 0) -> Source:
    """1024 training, 280 validation and 493 test rows, stratified by digit; `seed` decides which."""
    import datasets
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.astype(int)
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0…16 to the usual 0…255
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)])}
    )

    def rows(places: np.ndarray):
        images = [Image.fromarray(image) for image in pixels[places]]
        return datasets.Dataset.from_dict({"image": images, "label": labels[places].tolist()}, features=features)

    train, unseen = draw(len(labels), TRAIN, seed, strata=labels)
    validation, test = draw(len(unseen), VALIDATION, seed, strata=labels[unseen])
    return Source(
        name="digits",
        train=rows(train),
        validation=rows(unseen[validation]),
        test=rows(unseen[test]),
        builtin=True,
        task="image_classification",
        columns={"image": "image", "label": "label"},
        make_processor=make_processor,
    )


def make_processor():
    """An image processor that keeps the 8 by 8 pixels and the single channel: (1, 8, 8), values in [-1, 1]."""
    import transformers
    from transformers.utils import is_torchvision_available

    # Without torchvision the one falls back to the other, with a warning.
    name = "ViTImageProcessor" if is_torchvision_available() else "ViTImageProcessorPil"
    return getattr(transformers, name)(
        do_resize=False, size={"height": 8, "width": 8}, do_convert_rgb=False, image_mean=[0.5], image_std=[0.5]
    )
