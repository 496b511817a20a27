"""The blocks of `evidence.json`, named and typed: the one place that says what stands in it."""

from typing import Any, TypedDict


class Method(TypedDict):
    """What ran."""

    name: str
    paper: dict[str, str] | None
    hyperparameters: dict[str, Any] | None


class Model(TypedDict):
    """What was changed. `trainable_parameters` is unknown for a model that was made elsewhere."""

    parameters: int | None
    trainable_parameters: int | None
    peft: dict[str, Any] | None


class Division(TypedDict, total=False):
    """How held-out rows were found: whoever divides the same rows by the same seed has the same roles.

    `digest` is an HMAC over the validation and the test rows, under a key of its user; `key` says which key, and
    nothing about it: two digests can be compared where it is the same.
    """

    seed: int
    digest: str | None
    key: str | None


class Data(TypedDict):
    """The rows, by role and number only. `splits` has at least `forget`, `retain`, `validation` and `test`."""

    source: str | None
    splits: dict[str, int | None]
    request: dict[str, Any] | None
    forget_digest: str | None
    division: Division | None


class Seeds(TypedDict):
    """`run` draws the request's share and orders the unlearning, `original` made the original, twins follow it."""

    run: int | None
    original: int | None
    twins: list[int] | None


class Cost(TypedDict):
    """Seconds, rows read (each forward or backward of one row counts) and MB. `retrain_…` is one twin's."""

    original_seconds: float | None
    unlearn_seconds: float | None
    retrain_seconds: float | None
    unlearn_examples: int | None
    retrain_examples: int | None
    steps: int | None
    peak_memory_mb: float | None


class Environment(TypedDict):
    """What the figures depend on, without user name, host name or path."""

    python: str | None
    packages: dict[str, str | None] | None
    platform: str | None
    device: str | None
    seed: int | None


class Gap(TypedDict):
    """Distances: accuracies, membership and their average in percentage points."""

    forget_accuracy: float | None
    retain_accuracy: float | None
    test_accuracy: float | None
    membership: float | None
    average: float | None


class ModelFigures(TypedDict):
    """One model's figures: shares as fractions, losses in nats; see `MODEL_KEYS` for what stands in each part."""

    accuracy: dict[str, float | None]
    loss: dict[str, float | None]
    membership: dict[str, float | None]
    rows: dict[str, Any]


class Models(TypedDict):
    """The three that are compared; one that was not scored is `None`."""

    original: ModelFigures | None
    unlearned: ModelFigures | None
    retrained: ModelFigures | None


class Figure(TypedDict):
    """A figure beside the twins': see [`judge`](../evaluation/judgement.py)."""

    difference: float
    interval: list[float]
    margin: float
    worse: str
    p: float
    seen: float
    twins_needed: int | None


class Judged(TypedDict):
    """Whether a model could be one more twin, figure by figure; `None` with fewer than two twins."""

    original: dict[str, Figure | None] | None
    unlearned: dict[str, Figure | None] | None


class Evidence(TypedDict, total=False):
    """The whole file. `recipe` is that of the original and the twins, where one is known."""

    schema_version: int
    method: Method
    task: str
    model: Model
    data: Data
    models: Models
    gap: Gap
    floor: Gap
    difference: dict[str, float | None]
    judged: Judged
    recipe: dict[str, Any] | None
    seeds: Seeds
    cost: Cost
    environment: Environment
    distributions: dict[str, Any] | None
    training: dict[str, Any] | None
    attacks: dict[str, Any] | None
    notes: list[str]


SPLIT_KEYS = ("forget", "retain", "validation", "test")
MODEL_KEYS: dict[str, tuple[str, ...]] = {
    "accuracy": ("forget", "retain", "test"),
    "loss": ("forget", "retain", "test"),
    "membership": ("loss_auc", "loss_auc_se"),
    "rows": ("median_forget_loss", "top5_loss_share", "rms_z", "remembered", "over_forgotten", "level_corrected"),
}
REQUIRED = ("method", "model", "data", "models", "gap", "floor", "judged", "seeds", "cost", "environment")
KEYS: dict[str, tuple[str, ...]] = {
    **{name: tuple(Evidence.__annotations__[name].__annotations__) for name in REQUIRED},
    "data.splits": SPLIT_KEYS,
}
