"""What a contest of methods leaves, named and typed: the block of each run's evidence, and `contest.json`."""

from typing import Any, TypedDict

from hf_unlearn.report.blocks import Environment, Method, Request, Seeds, Splits
from hf_unlearn.report.stress_blocks import Tuning


class Tried(TypedDict):
    """A learning rate that was tried; `distance` is that of `evaluation.tuning.validation_distance`, in points, and
    `None` where the training broke down. Examples and seconds are those of the training and of valuing it."""

    learning_rate: float | None
    distance: float | None
    examples: int
    seconds: float


class ContestRun(TypedDict):
    """The block `contest` in the evidence of one entry under one seed; or, where it `failed`, its whole file."""

    entry: str
    seed: int
    tried: list[Tried]
    failed: str | None


class OverSeeds(TypedDict):
    """A figure under each seed, its mean, and half its 95 % interval over seeds (Student's t; `None` with one)."""

    values: list[float | None]
    mean: float
    half_width: float | None


class OverallVerdict(TypedDict):
    """Under how many of the judged `seeds` a figure was told apart from the twins', was within the margin or was not
    settled, and how many seeds saw any figure told apart, or utility lost."""

    seeds: int
    told: dict[str, int]
    within: dict[str, int]
    open: dict[str, int]
    told_apart: int
    damaged: int
    text: str


class DurabilityCell(TypedDict):
    """A figure under one disturbance, over seeds: the unlearned model's, the twins' mean, the standard deviation
    between twins, unlearned minus twins, and under how many seeds it lies apart from them."""

    unlearned: OverSeeds | None
    twins: OverSeeds | None
    spread: OverSeeds | None
    difference: OverSeeds | None
    apart: int


class StressTerms(TypedDict):
    """How models were disturbed under the first seed, and of how many rows of each kind."""

    protocol: Tuning
    rows: dict[str, int]


class EntryFigures(TypedDict):
    """One contestant. `kind`: `nothing`, `method`, `tuned` or `twin`; `best`: no other is as good in distance, utility
    and cost; `tried[seed]`: the rates of a search; `failed`: why there is no figure under some seed."""

    name: str
    kind: str
    method: Method
    figures: dict[str, OverSeeds | None]
    verdict: OverallVerdict
    best: bool
    tried: list[list[Tried]]
    failed: list[str]


class Entry(EntryFigures, total=False):
    """With `--stress` also `durability[weights][rows][figure]`."""

    durability: dict[str, dict[str, dict[str, DurabilityCell]]]


class ContestFigures(TypedDict):
    """The whole `contest.json`. `floor`: of each distance, a twin against the others."""

    schema_version: int
    task: str
    source: str | None
    request: Request | None
    splits: list[Splits]
    seeds: list[Seeds]
    retrain: int
    tune: int
    entries: list[Entry]
    floor: dict[str, OverSeeds | None]
    passed_over: dict[str, str]
    recipe: dict[str, Any] | None
    environment: Environment
    notes: list[str]


class Contest(ContestFigures, total=False):
    """With `--stress` also how models were disturbed."""

    stress: StressTerms
