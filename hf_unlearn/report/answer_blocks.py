"""What models answered, drew and say, in figures: three blocks of `evidence.json`."""

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


class SaidInstead(TypedDict):
    """What language models say in the places of forgotten tokens: KL(twin‖model) over all words, in nats per token, of
    `original` and `unlearned` the mean over twins; of `each` twin that to the others, and `twins` is their mean. It is
    measured in the places of `tokens`, drawn at random `of` so many. `standard_errors`, over tokens whose deviations
    may go together within a row, are by model, and of the `change` from the original to the unlearned model."""

    tokens: int
    of: int
    original: float | None
    unlearned: float | None
    twins: float | None
    each: list[float | None]
    standard_errors: dict[str, float | None]
