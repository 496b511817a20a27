"""A classifier from outside that says what images show: it knows the real ones, and nothing of any model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_unlearn.data.rows import AnyRows

SIDE = 16  # pixels that larger images are brought down to
HIDDEN = 128


@dataclass
class Judge:
    """A perceptron with one hidden layer on pixels, of `scikit-learn`, and what it gets right of images that it never
    saw. Good for digits and the like, not for photographs.

    Args:
        classifier: fitted.
        accuracy: share of unseen rows that it tells.
    """

    classifier: Any
    accuracy: float

    @classmethod
    def fit(cls, seen: AnyRows, unseen: AnyRows, seed: int = 0) -> "Judge":
        """From rows as [`ImageGeneration`](task.py) encodes them."""
        from sklearn.neural_network import MLPClassifier

        images, labels = pixels_of(seen)
        classifier = MLPClassifier((HIDDEN,), alpha=1e-3, max_iter=300, random_state=seed)
        classifier.fit(_flat(images), labels)
        others, wanted = pixels_of(unseen)
        return cls(classifier, float(np.mean(classifier.predict(_flat(others)) == wanted)))

    def classes(self, images: np.ndarray) -> np.ndarray:
        """The class that each image shows, `(n,)`, for `(n, channels, height, width)` in [-1, 1]."""
        return self.classifier.predict(_flat(images)) if len(images) else np.zeros(0, dtype=int)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Activations of the hidden layer, `(n, 128)`."""
        weights, bias = self.classifier.coefs_[0], self.classifier.intercepts_[0]
        return np.maximum(_flat(images) @ weights + bias, 0)


def pixels_of(rows: AnyRows) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, channels, height, width)` in [-1, 1], brought down to `SIDE`, and their classes `(n,)`."""
    features = rows.__getitems__(range(len(rows)))
    images = np.stack([_small(row["pixel_values"]).numpy() for row in features])
    return images, np.array([int(row["labels"]) for row in features])


def _flat(images: np.ndarray) -> np.ndarray:
    return _small(torch.as_tensor(np.asarray(images, dtype=np.float32))).flatten(1).double().numpy()


def _small(images: torch.Tensor) -> torch.Tensor:
    """`(channels, height, width)`, or many of them, with sides of at most `SIDE` pixels."""
    if max(images.shape[-2:]) <= SIDE:
        return images
    return torch.nn.functional.adaptive_avg_pool2d(images, (SIDE, SIDE))
