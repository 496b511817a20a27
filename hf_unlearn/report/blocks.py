"""The blocks of `evidence.json`, named and typed: the one place that says what stands in it.

[`schema`](schema.py) is made from these classes, and every file is checked against it. A block may hold more than is
listed here; what is listed must be there, and of its type.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from hf_unlearn.report.answer_blocks import Answers, Drawn, SaidInstead
from hf_unlearn.report.stress_blocks import Stress


@dataclass(frozen=True)
class Items:
    """Beside the type of a list: how many items it has."""

    count: int


Interval = Annotated[list[float], Items(2)]  # the lower end and the upper one


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


class Splits(TypedDict):
    """Rows of each role; further counts may stand beside them."""

    forget: int | None
    retain: int | None
    validation: int | None
    test: int | None


class Request(TypedDict, total=False):
    """What may be public of the forget request: `rows` it took, `count` of its classes or conditions. `classes` are
    named only where they are published."""

    kind: str
    column: str | None
    count: int
    fraction: float
    rows: int
    classes: list[str]


class Data(TypedDict):
    """The rows, by role and number only."""

    source: str | None
    splits: Splits
    request: Request | None
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


class BySplit(TypedDict):
    """A figure of each reported split; removed classes have `nonmembers` too."""

    forget: float | None
    retain: float | None
    test: float | None


class Membership(TypedDict):
    """AUC of the attack by the loss, and its standard error."""

    loss_auc: float | None
    loss_auc_se: float | None


class RowStatistics(TypedDict):
    """z-scores of forget rows among the twins."""

    rms_z: float | None
    remembered: float | None
    over_forgotten: float | None


class RowFigures(RowStatistics):
    """What single forget rows say; `level_corrected` has each model's mean on test rows taken off."""

    median_forget_loss: float | None
    top5_loss_share: float | None
    level_corrected: RowStatistics


class LabelSetFigures(TypedDict, total=False):
    """Of rows with sets of labels: `<split>_micro_f1` and `<split>_macro_f1` in [0, 1]; empty for others."""

    f1: dict[str, float | None]


class ModelFigures(LabelSetFigures):
    """One model's figures: shares as fractions, losses in nats; intervals of 95 % by figure; and what the metrics of
    installed packages say."""

    accuracy: BySplit
    loss: BySplit
    membership: Membership
    intervals: dict[str, Interval]
    rows: RowFigures
    further: dict[str, float | None]


class TwinFigures(ModelFigures):
    """The mean over so many twins; its intervals are the lowest and the highest of them."""

    twins: int


class Models(TypedDict):
    """The three that are compared; one that was not scored is `None`."""

    original: ModelFigures | None
    unlearned: ModelFigures | None
    retrained: TwinFigures | None


class Figure(TypedDict):
    """A figure beside the twins': see [`judge`](../evaluation/judgement.py)."""

    difference: float
    interval: Interval
    margin: float
    worse: str
    p: float
    seen: float
    twins_needed: int | None


class Judged(TypedDict):
    """Whether a model could be one more twin, figure by figure; `None` with fewer than two twins."""

    original: dict[str, Figure | None] | None
    unlearned: dict[str, Figure | None] | None


class AttackFigure(TypedDict):
    """A figure of an attack; `null` is what an attack without knowledge gets."""

    value: float | None
    interval: Interval | None
    null: float | None


class Attacks(TypedDict):
    """`figures[attack][model]` with the models `original`, `unlearned` and `twins`; what was left out."""

    figures: dict[str, dict[str, AttackFigure | None]]
    not_run: list[str]


class Losses(TypedDict):
    """Counts of losses in bins of nats, `counts[model][role]`."""

    edges: list[float]
    counts: dict[str, dict[str, list[int]]]


class RowZ(TypedDict):
    """Counts of z-scores of forget rows, `counts[model]`."""

    edges: list[float]
    counts: dict[str, list[int]]


class Roc(TypedDict):
    """ROC curves of the attack by the loss, `tpr[model]` at the rates `fpr`; the lowest and the highest twin."""

    members: int
    nonmembers: int
    fpr: list[float]
    tpr: dict[str, list[float]]
    twins_range: Annotated[list[list[float]], Items(2)] | None


class Distance(TypedDict):
    """Kolmogorov-Smirnov distance of forget losses from the twins'."""

    distance: float | None
    signed: float | None
    direction: str | None
    floor: float | None
    floor_max: float | None


class Distributions(TypedDict):
    """What plots are made from: counts and rates, of no single row."""

    loss: Losses | None
    roc: Roc | None
    row_z: RowZ | None
    ks: dict[str, Distance | None] | None


class Curve(TypedDict):
    """A figure that was logged, by step."""

    step: list[int]
    value: list[float | None]


class Training(TypedDict):
    """What the run logged."""

    curves: dict[str, Curve]


class Quality(TypedDict):
    """Kolmogorov-Smirnov test between truth ratios of a model and a twin."""

    distance: float | None
    p_value: float | None


class Qualities(Quality):
    """The same against several twins: the means, and the p-value of each."""

    each: list[float | None]


class Language(TypedDict):
    """What language models know of their rows: `figures[name][model]`, `attacks[name][model]`."""

    definition: str
    figures: dict[str, dict[str, float | None]]
    attacks: dict[str, dict[str, AttackFigure | None]]
    priv_leak: dict[str, float | None]
    forget_quality: dict[str, Qualities | None]
    not_checked: list[str]


class ShadowFigures(TypedDict):
    """What a pool of shadow models says of one kind of model: AUC and TPR (by false positive rate) of U-LiRA, AUCs of
    RULI's games on all audited rows and on the most memorized, and over rows KLoM in nats, and ε. `klom_null_median`
    and `null_median` are what both come to by chance."""

    auc: AttackFigure
    tpr: dict[str, AttackFigure]
    privacy_auc: AttackFigure
    privacy_memorized_auc: AttackFigure
    efficacy_auc: AttackFigure
    efficacy_memorized_auc: AttackFigure
    klom_median: float | None
    klom_p95: float | None
    klom_null_median: float | None
    epsilon_median: float | None
    epsilon_p95: float | None
    null_median: float | None


class LiraSizes(TypedDict):
    """How large a pool of shadow models was."""

    shadows: int
    targets: int
    audited_rows: int


class Lira(LiraSizes, total=False):
    """A pool of shadow models, and its figures by kind of model: `original`, the method's name, `twins`. Without
    `models` it is an attack by U-LiRA alone, whose figures stand beside the sizes by the same names."""

    memorized_rows: int
    models: dict[str, ShadowFigures]


class SampledErrors(TypedDict):
    """Standard errors of a mean over a sample of rows, for all of them: a share, and nats."""

    accuracy: float | None
    loss: float | None


class SampledRole(TypedDict):
    """`rows` of a role were scored, drawn by the run's seed, `of` so many. `standard_errors` by model, and of the
    `gap` between the unlearned model and the mean of the twins, which are scored on the same rows."""

    rows: int
    of: int
    standard_errors: dict[str, SampledErrors | None]


class Sampled(TypedDict, total=False):
    """Roles of which a sample was scored."""

    retain: SampledRole
    test: SampledRole
    nonmembers: SampledRole


class Further(TypedDict, total=False):
    """Blocks that an option or another command adds to the evidence of a run. `units` is there where a task's accuracy
    and loss are others than usual: what they are called."""

    units: dict[str, str]
    answers: Answers
    drawn: Drawn
    language: Language
    stress: Stress
    lira: Lira
    sampled: Sampled
    said_instead: SaidInstead


class Evidence(Further):
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
    distributions: Distributions | None
    training: Training | None
    attacks: Attacks | None
    notes: list[str]
