"""The evidence block `stress` in words and cells: what each disturbance brings back, beside the twins."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hf_unlearn.report.table import ABSENT, Row, number, percent

Block = Mapping[str, Any]
WEIGHTS = {"as_saved": "as saved", "int8": "8 bits (int8)", "nf4": "4 bits (NF4)"}
KINDS = {
    "untouched": "untouched",
    "kept_rows": "benign: {:,} kept rows",
    "unrelated_rows": "benign: {:,} unrelated rows",
    "few_forgotten_rows": "relearning: {:,} forgotten rows",
    "related_rows": "relearning: {:,} related rows",
    "paraphrases": "relearning: {:,} of them in other words",
}
FIGURES: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "forget_accuracy": ("forget accuracy (%)", lambda value: percent(value, 1)),
    "membership_auc": ("membership AUC (%)", lambda value: percent(value, 1)),
    "forget_loss": ("forget loss (nats)", lambda value: number(value, 3)),
    "unseen_accuracy": ("unseen accuracy (%)", lambda value: percent(value, 1)),
    "test_accuracy": ("test accuracy (%)", lambda value: percent(value, 1)),
}
# Whether a higher value says that more is remembered.
ON_SCREEN = {"forget_accuracy": True, "membership_auc": True}
OVER_STEPS = ("forget_accuracy", "forget_loss")
MARK = (
    "*: one more twin would lie as far from the others in less than 5 % of cases, cell by cell (Student's t over two "
    "twins or more)."
)


def grid(block: Block, key: str) -> Iterator[tuple[str, list[Mapping[str, Any] | None]]]:
    """A line for each kind of rows that models were fine-tuned on: its name, and the figure's cell for each kind of
    weights. Nothing where the figure was not measured."""
    for kind, name in KINDS.items():
        cells = [((block["cells"].get(weights) or {}).get(kind) or {}).get(key) for weights in WEIGHTS]
        if any(cells):
            yield name.format(block["rows"].get(kind, 0)), cells


def grid_rows(block: Block, key: str) -> list[Row]:
    """The grid of a figure as text: `unlearned | twins ± their standard deviation` in each cell."""
    name, show = FIGURES[key]
    body: list[Row] = [(title, *(_cell(found, show) for found in cells)) for title, cells in grid(block, key)]
    return [(name, *WEIGHTS.values()), *body] if body else []


def curve_rows(block: Block) -> list[Row]:
    """Accuracy and loss of forgotten rows over the steps of relearning."""
    curve = block["curve"]
    name = KINDS[curve["rows"]].format(block["rows"].get(curve["rows"], 0))
    rows: list[Row] = [(f"{name}, after steps", *(f"{step:,}" for step in curve["steps"]))]
    for key in OVER_STEPS:
        figure, (title, show) = curve["figures"][key], FIGURES[key]
        lines = {"unlearned": figure["unlearned"], "twins": (figure["twins"] or {}).get("mean")}
        for model, values in lines.items():
            if values is not None:
                rows.append((f"{title}, {model}", *(show(value) for value in values)))
    return rows


def robustness_rows(block: Block | None, keys: tuple[str, ...] = tuple(FIGURES)) -> list[Row]:
    """Every cell as a line: what was done, the original, the unlearned model, the twins and the difference."""
    rows: list[Row] = []
    for key in keys if block else ():
        name, show = FIGURES[key]
        for title, cells in grid(block or {}, key):
            for weights, found in zip(WEIGHTS.values(), cells, strict=True):
                if found is not None:
                    twins = twins_text(found["twins"], show)
                    difference = signed(found, show)
                    label = f"{title}, {weights}: {name}"
                    rows.append((label, show(found["original"]), show(found["unlearned"]), twins, difference))
    return [("", "original", "unlearned", "twins", "difference"), *rows] if rows else []


def sentences(block: Block) -> list[str]:
    """How models were disturbed, and what the cells hold."""
    reworded = [_reworded(found) for found in block["paraphrases"].values()]
    words = [tuning_text(block["protocol"]), _measured(block), _told_apart(block), *reworded, *block["not_checked"]]
    return [text for text in words if text]


def twins_text(twins: Mapping[str, Any] | None, show: Callable[[float | None], str]) -> str:
    """The twins' mean with their ends."""
    if twins is None:
        return ABSENT
    ends = "" if twins["spread"] is None else f" [{show(twins['lowest'])}, {show(twins['highest'])}]"
    return show(twins["mean"]) + ends


def signed(found: Mapping[str, Any], show: Callable[[float | None], str]) -> str:
    """Unlearned minus twins with its sign, and a star where it lies apart."""
    difference = found["difference"]
    if difference is None:
        return ABSENT
    size = show(abs(difference))
    sign = "" if not size.strip("0.") else "+" if difference > 0 else "−"
    return f"{sign}{size}{'*' if found['apart'] else ''}"


def _cell(found: Mapping[str, Any] | None, show: Callable[[float | None], str]) -> str:
    if found is None:
        return ABSENT
    twins = found["twins"]
    spread = "" if twins is None or twins["spread"] is None else f" ±{show(twins['spread'])}"
    beside = ABSENT if twins is None else f"{show(twins['mean'])}{spread}"
    return f"{'*' if found['apart'] else ''}{show(found['unlearned'])} | {beside}"


def tuning_text(tuning: Mapping[str, Any]) -> str:
    """How models were fine-tuned, and what that costs the one that the rate was settled on."""
    text = f"Protocol {tuning['name']}: {tuning['steps']} steps of at most {tuning['batch_size']} rows, AdamW at "
    text += f"{tuning['learning_rate']:.2g}"
    if tuning["before"] is None or tuning["after"] is None:
        return f"{text}; quantized afterwards."
    survivor = {"twin": "a twin"}.get(tuning["survivor"], f"the {tuning['survivor']}")
    survivor = "the unlearned model" if tuning["survivor"] == "unlearned" else survivor
    cost = f"{survivor} goes from {percent(tuning['before'], 1)} to {percent(tuning['after'], 1)} % on validation rows"
    if tuning["learning_rate"] != tuning["asked_learning_rate"]:
        text += f", down from {tuning['asked_learning_rate']:.2g} until it was benign"
    return f"{text}: on kept rows {cost}. Quantized afterwards."


def _measured(block: Block) -> str:
    rows = block["rows"]
    return (
        f"Measured on {rows['measured']:,} forgotten rows, none of which was learned from, and {rows['unseen']:,} "
        "unseen ones."
    )


def _reworded(found: Mapping[str, Any]) -> str:
    """What asking in other words changes for the forgotten rows, without any training."""
    key, parts = "forget_accuracy", []
    for name, model in {"unlearned": "of the unlearned model", "twins": "of twins"}.items():
        before, after = ((found[name] or {}).get(when, {}).get(key) for when in ("before", "after"))
        if before is not None and after is not None:
            parts.append(f"{model} from {percent(before, 1)} to {percent(after, 1)} %")
    return f"Asked in other words, forget accuracy goes {', '.join(parts)}." if parts else ""


def _told_apart(block: Block) -> str:
    """How many cells lie apart from the twins, on either side, by figure."""
    parts = []
    for key, higher_is_more in ON_SCREEN.items():
        known = [found for _, cells in grid(block, key) for found in cells if found and found["apart"] is not None]
        sides = [(found["difference"] > 0) == higher_is_more for found in known if found["apart"]]
        if known:
            name = FIGURES[key][0].partition(" (")[0]
            parts.append(f"{name}: {sum(sides)} of {len(known)} cells above them, {len(sides) - sum(sides)} below")
    if not parts:
        return "With fewer than two twins no cell can be told apart from theirs."
    return f"Told apart from the twins (*), {'; '.join(parts)}. One cell in twenty is by chance."
