"""What models answered and drew, in figures: two blocks of `evidence.json`."""

from typing import Any, TypedDict

ORIGINAL, UNLEARNED = "the original", "the unlearned model"  # all other models are twins


class Answers(TypedDict):
    """What models answered, in figures: `rows[kind]` asked, `figures[kind][figure][model]`. No text."""

    rows: dict[str, int]
    figures: dict[str, dict[str, dict[str, float | None]]]


class Drawn(TypedDict):
    """What models drew: `images[kind]` of each model, `figures[kind][figure][model]` with the models `original`,
    `unlearned` and `twins`, and beside them `gap` and `floor`. `curves[model][kind]` are mean errors of forget and
    test rows at timesteps from early to late, in equal parts of the schedule. `judge` is the classifier that says what
    images show; `picture` a PNG in base64, rows of images of the models `shown`."""

    images: dict[str, int]
    figures: dict[str, dict[str, dict[str, float | None]]]
    curves: dict[str, dict[str, list[float]]]
    judge: dict[str, Any]
    shown: list[str]
    picture: str | None
