"""The evidence block `stress`, named and typed: what brings forgotten rows back, beside the twins."""

from typing import TypedDict


class TwinSpread(TypedDict):
    """A figure of the twins: their mean, the lowest and the highest, and the standard deviation between them."""

    mean: float
    lowest: float
    highest: float
    spread: float | None


class CellFigure(TypedDict):
    """A figure of each kind of model under one disturbance; shares as fractions, losses in nats.

    `difference` is unlearned minus the twins' mean. `apart`: whether one more twin would lie as far away in less than
    5 % of cases, by Student's t over the twins; `None` with fewer than two.
    """

    original: float | None
    unlearned: float | None
    twins: TwinSpread | None
    difference: float | None
    apart: bool | None


class TwinCurve(TypedDict):
    """The twins' mean, and the lowest and the highest of them, by step."""

    mean: list[float | None]
    lowest: list[float | None]
    highest: list[float | None]


class StepFigure(TypedDict):
    """A figure after so many steps."""

    original: list[float | None] | None
    unlearned: list[float | None]
    twins: TwinCurve | None


class StepCurve(TypedDict):
    """Figures over the steps of fine-tuning on one kind of `rows`, of the weights as saved."""

    rows: str
    steps: list[int]
    figures: dict[str, StepFigure]


class Tuning(TypedDict):
    """How models were fine-tuned. `asked_learning_rate` was halved until `survivor`, fine-tuned on kept rows, lost
    no more than `margin` of its accuracy on validation rows: `before` to `after`. Published rates stay as they are."""

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    asked_learning_rate: float
    survivor: str
    margin: float
    before: float | None
    after: float | None
    survives: bool | None


class Disturbed(TypedDict):
    """A model's figures before and after it was disturbed."""

    before: dict[str, float | None]
    after: dict[str, float | None]


class TwinRange(TypedDict):
    """The twins' smallest and largest change."""

    lowest: float
    highest: float


class Beyond(TypedDict):
    """How a figure of the unlearned model changed, and by how much that exceeds the twins' mean change."""

    change: float
    beyond: float
    twins: TwinRange


class Disturbance(TypedDict):
    """One disturbance of all models."""

    original: Disturbed | None
    unlearned: Disturbed | None
    twins: Disturbed | None
    beyond_twins: dict[str, Beyond] | None


class Stress(TypedDict):
    """Whether the forgotten rows come back: `cells[weights][rows][figure]`, with weights `as_saved`, `int8` and `nf4`,
    and `rows` that the models were fine-tuned on before they were quantized, or `untouched`.

    `rows` counts the rows of each kind, `measured` those that every figure of the forgotten rows is of. `quantized`
    says which weights were. `paraphrases` are the same forgotten rows asked in other words.
    """

    protocol: Tuning
    rows: dict[str, int]
    quantized: dict[str, str]
    cells: dict[str, dict[str, dict[str, CellFigure]]]
    curve: StepCurve
    paraphrases: dict[str, Disturbance]
    not_checked: list[str]
