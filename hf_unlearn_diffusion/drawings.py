"""Images that models draw from the same seeds: what a classifier sees in them, and how they look side by side."""

import base64
from dataclasses import dataclass, field
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.answers import ORIGINAL, UNLEARNED
from hf_unlearn.evaluation.generation import sample_rows
from hf_unlearn.evaluation.scoring import collect
from hf_unlearn.report import blocks
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import eval_mode, unwrap
from hf_unlearn_diffusion.frechet import frechet_distance
from hf_unlearn_diffusion.judge import Judge, pixels_of

STEPS = 25  # of a deterministic sampler (DDIM, arXiv 2010.02502)
BATCH = 250  # images at once, and of large ones as many as have
VALUES = 2**15  # places that noise is put on
CURVE = 256  # rows of a kind that an error by timestep is a mean of
SEEDS_SHOWN = 4  # of each class, in the picture
SIDE = 64  # pixels, at most, of an image in the picture
WHOLE = "drawings.png"  # what everybody drew; stays on this machine


@dataclass
class Drawings:
    """The same seeds, class by class, under each model.

    Args:
        task: of the rows.
        most: images of each class.
        seed: of the noise that they begin with.
        curves: by model, mean error of `forget` and `test` rows in each part of the schedule of the noise.
        shown: by model, `(classes · most, channels, height, width)` in [-1, 1], class by class.
    """

    key: ClassVar[str] = "drawn"
    task: Task
    most: int
    seed: int = 0
    shown: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    gone: tuple[int, ...] = ()
    judge: Judge | None = None
    unseen: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def classes(self) -> np.ndarray:
        """The class of each image, `(classes · most,)`."""
        return np.repeat(np.arange(len(self.task.label_names or [])), self.most)

    def ask(self, name: str, model: torch.nn.Module, splits: UnlearningSplits, batch_size: int = BATCH) -> None:
        """Have a model draw; `name` is what it is called. The first time the classifier is made too."""
        if self.judge is None:
            self._meet(splits)
        self.shown[name] = draw(self.task, model, self.classes, self.seed)
        kinds = {"forget": splits.forget, "test": splits.test}
        self.curves[name] = {kind: self._curve(model, rows, batch_size) for kind, rows in kinds.items() if len(rows)}

    def of(self, name: str) -> tuple[np.ndarray, dict[str, list[float]]]:
        return self.shown[name], self.curves[name]

    def put(self, name: str, what: tuple[np.ndarray, dict[str, list[float]]]) -> None:
        self.shown[name], self.curves[name] = what

    def drop(self, name: str) -> None:
        del self.shown[name], self.curves[name]

    def _curve(self, model: torch.nn.Module, rows: Rows, batch_size: int) -> list[float]:
        """Mean error of at most `CURVE` rows, which the seed draws, at each of their draws, early timesteps first."""
        some = sample_rows(rows, CURVE, self.seed)
        found = collect(model, self.task, some, {"errors": attrgetter("errors_by_draw")}, batch_size=batch_size)
        return [float(each) for each in found["errors"].mean(0)]

    def _meet(self, splits: UnlearningSplits) -> None:
        known = splits.retain.at([*splits.retain.indices, *splits.forget.indices])
        self.gone = tuple(splits.forgotten_classes)
        self.judge = Judge.fit(known, splits.test, self.seed)
        images, labels = pixels_of(splits.test)
        self.unseen = images[~np.isin(labels, self.gone)]

    def block(self) -> blocks.Drawn:
        """The evidence block `drawn`. The picture lacks what the original draws of forgotten classes, and the original
        altogether where rows of any class are forgotten: a denoiser may draw the very rows that it was trained on."""
        assert self.judge is not None
        names = {"forgotten_classes": self._of(forgotten=True), "kept_classes": self._of(forgotten=False)}
        kinds = {kind: places for kind, places in names.items() if places.any()}
        return {
            "images": {kind: int(places.sum()) for kind, places in kinds.items()},
            "figures": {kind: self._figures(kind, places) for kind, places in kinds.items()},
            "curves": self.curves,
            "judge": {"kind": "perceptron on pixels", "accuracy": self.judge.accuracy},
            "shown": self._pictured(),
            "picture": base64.b64encode(self.picture(self._pictured(), whole=False)).decode(),
        }

    def _of(self, forgotten: bool) -> np.ndarray:
        """Which of the images are of forgotten classes, or of kept ones, `(classes · most,)`."""
        return np.isin(self.classes, self.gone) == forgotten

    @property
    def _twins(self) -> list[str]:
        return [name for name in self.shown if name not in (ORIGINAL, UNLEARNED)]

    def _figures(self, kind: str, places: np.ndarray) -> dict[str, dict[str, float | None]]:
        judge, wanted = self.judge, self.classes[places]
        assert judge is not None
        shares: dict[str, float | None] = {}
        shares |= {
            name: float(np.mean(judge.classes(images[places]) == wanted)) for name, images in self.shown.items()
        }
        figures = {"recognised": side_by_side(shares, self._twins)}
        if kind == "kept_classes":
            clouds = {name: judge.features(images[places]) for name, images in self.shown.items()}
            unseen = judge.features(self.unseen)
            figures["frechet_unseen"] = side_by_side(
                {name: frechet_distance(cloud, unseen) for name, cloud in clouds.items()}, self._twins
            )
            figures["frechet_twins"] = self._to_twins(clouds)
        return figures

    def _to_twins(self, clouds: dict[str, np.ndarray]) -> dict[str, float | None]:
        """Mean distance to the twins' images; the floor is that of a twin to the others."""

        def mean(name: str) -> float | None:
            found = [frechet_distance(clouds[name], clouds[twin]) for twin in self._twins if twin != name]
            known = [each for each in found if each is not None]
            return float(np.mean(known)) if known else None

        between = [value for twin in self._twins if (value := mean(twin)) is not None]
        figures = {"original": ORIGINAL, "unlearned": UNLEARNED}
        return {
            **{key: mean(name) if name in clouds else None for key, name in figures.items()},
            "twins": None,
            "gap": None,
            "floor": float(np.mean(between)) if between else None,
        }

    def _pictured(self) -> list[str]:
        """Who is in the public picture."""
        names = [name for name in (ORIGINAL, UNLEARNED, *self._twins[:1]) if name in self.shown]
        return [name for name in names if self.gone or not self._is_original(name)]

    def _is_original(self, name: str) -> bool:
        """Whether these are the original's images, whatever they are called: a method may have changed nothing."""
        return ORIGINAL in self.shown and np.array_equal(self.shown[name], self.shown[ORIGINAL])

    def picture(self, names: list[str], *, whole: bool) -> bytes:
        """A PNG: a column for each class, and of each model a band of rows, a seed each. Without `whole` the
        original's images of forgotten classes are grey. Nothing where there are no names."""
        from PIL import Image

        if not names:
            return b""
        count, seeds = len(self.task.label_names or []), min(SEEDS_SHOWN, self.most)
        bands = []
        for name in names:
            images = self.shown[name].reshape(count, self.most, *self.shown[name].shape[1:])[:, :seeds].copy()
            if self._is_original(name) and not whole:
                images[list(self.gone)] = -0.4
            bands.append(images)
        scale = max(1, 32 // bands[0].shape[-1])
        tiles = [[_tile(images[c, s], scale) for c in range(count)] for images in bands for s in range(seeds)]
        side = tiles[0][0].size
        gap, band = 2, 8
        height = len(tiles) * (side[1] + gap) + (len(bands) - 1) * band
        sheet = Image.new("RGB", (count * (side[0] + gap) - gap, height), "white")
        for r, line in enumerate(tiles):
            for c, tile in enumerate(line):
                sheet.paste(tile, (c * (side[0] + gap), r * (side[1] + gap) + r // seeds * band))
        buffer = BytesIO()
        sheet.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()

    def text(self) -> str:
        return f"All images are in {WHOLE}, which stays on this machine: rows of {', '.join(self.shown)}."

    def save(self, folder: Path) -> None:
        (folder / WHOLE).write_bytes(self.picture(list(self.shown), whole=True))


@torch.no_grad()
def draw(task: Any, model: torch.nn.Module, classes: np.ndarray, seed: int, steps: int = STEPS) -> np.ndarray:
    """One image for each of `classes`, `(n, channels, height, width)` in [-1, 1], by DDIM from the noises of `seed`.

    The model, wrapped or not, is left as it was.
    """
    inner: Any = unwrap(model)
    side = inner.unet.config.sample_size
    values = side * side if isinstance(side, int) else side[0] * side[1]
    at_once = max(1, min(BATCH, VALUES // values))
    generator, found = torch.Generator().manual_seed(seed), []
    with eval_mode(model):
        for start in range(0, len(classes), at_once):
            images = task.draw(model, classes[start : start + at_once], generator, steps)
            found.append(images.float().cpu().numpy() * 2 - 1)
    return np.concatenate(found)


def side_by_side(values: dict[str, float | None], twins: list[str]) -> dict[str, float | None]:
    """A figure of each model: `original`, `unlearned`, the mean of the `twins`, the `gap` from the unlearned model to
    them, and the `floor`, that of a twin to the mean of the others."""
    known = [value for twin in twins if (value := values[twin]) is not None]
    mean, unlearned = (float(np.mean(known)) if known else None), values.get(UNLEARNED)
    floor = None
    if len(known) > 1:
        floor = float(np.mean([abs(v - (sum(known) - v) / (len(known) - 1)) for v in known]))
    gap = None if mean is None or unlearned is None else abs(unlearned - mean)
    return {"original": values.get(ORIGINAL), "unlearned": unlearned, "twins": mean, "gap": gap, "floor": floor}


def _tile(image: np.ndarray, scale: int):
    """A PIL image of one `(channels, height, width)` in [-1, 1]: small ones enlarged, large ones made small."""
    from PIL import Image

    values = np.rint((image.transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    tile = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).convert("RGB")
    tile = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
    tile.thumbnail((SIDE, SIDE))
    return tile
