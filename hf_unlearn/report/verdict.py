"""What the figures of a run allow to say, and where they stop: a few sentences, with the numbers they rest on.

For every figure one of three: *told apart* from retrained twins, *within the margin*, or *not settled*.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_unlearn.report.said_instead import odd_words

ALPHA = 0.03  # of the verdict as a whole; measured false alarms stay below 5 %, see benchmarks
FEW_ROWS = 50
LOST = 2.0  # points of accuracy beside the original that count as damage where no twins say what is normal
DEAR, EQUAL, MORE = 0.5, 0.9, 1.1  # of one retraining
NO_TWIN = (
    "No retrained twin to compare with: the figures say what changed, not whether the model is like one that never "
    "saw the forgotten rows."
)
ONE_TWIN = "One retrained twin shows a distance, not how far two retrainings lie apart: take two, better four."
NOTHING = "Doing nothing would not have been told apart either: this case can hardly tell methods apart."
FAR = 50.0  # points; to say of a larger difference that it would be seen says nothing
TOLD, WITHIN, OPEN = "told apart", "within the margin", "not settled"


def _points(value: float) -> str:
    return f"{value:.1f} points"


def _spreads(value: float) -> str:
    return f"{value:.2f} sd"


def _times(value: float) -> str:
    return f"{math.exp(value):.2f} ×"


@dataclass(frozen=True)
class Kind:
    """How a figure is spoken of.

    Args:
        title: its name; `above`, `below`: what a difference upwards or downwards means.
        write: a difference as text.
    """

    title: str
    above: str = "above"
    below: str = "below"
    write: Callable[[float], str] = _points


KINDS = {
    "forget_accuracy": Kind("forget accuracy"),
    "membership": Kind("membership AUC"),
    "row_shift": Kind("log-odds of forget rows", "above: remembered", "below: over-forgotten", _spreads),
    "row_spread": Kind("scatter of single rows", write=_times),
    "retain_accuracy": Kind("retain accuracy"),
    "test_accuracy": Kind("test accuracy"),
}
UTILITY = ("retain_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Outcome:
    """A figure's outcome, `TOLD`, `WITHIN` or `OPEN`, and the figures behind it."""

    key: str
    found: str
    figure: Mapping[str, Any]

    @property
    def title(self) -> str:
        return KINDS[self.key].title

    def distance(self) -> str:
        """`1.2 points below`."""
        kind, value = KINDS[self.key], self.figure["difference"]
        if self.key == "row_spread":
            return f"{_times(value)} the twins'"
        return f"{kind.write(abs(value))} {kind.above if value > 0 else kind.below}"

    def interval(self) -> str:
        write = KINDS[self.key].write
        low, high = (write(end).replace("-", "−") for end in self.figure["interval"])
        return f"{low.split()[0]} to {high}"


def outcomes(evidence: Mapping[str, Any], model: str = "unlearned") -> list[Outcome]:
    """The outcome of every figure that could be judged; empty with fewer than two twins.

    Within the margin: the interval lies inside it. Told apart: p passes Holm's test over all figures, so that one more
    twin is told apart in any of them in less than 5 % of cases.
    """
    judged = dict((evidence.get("judged") or {}).get(model) or {})
    figures = {key: judged[key] for key in KINDS if judged.get(key)}
    told = holm({key: figure["p"] for key, figure in figures.items()})
    found = {key: WITHIN if _inside(figure) else TOLD if told[key] else OPEN for key, figure in figures.items()}
    return [Outcome(key, found[key], figure) for key, figure in figures.items()]


def holm(p_values: Mapping[str, float], alpha: float = ALPHA) -> dict[str, bool]:
    """Which of several hypotheses are refused so that any true one is with probability `alpha` at most (Holm 1979)."""
    refused, going = {}, True
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        going = going and p <= alpha / (len(p_values) - rank)
        refused[key] = going
    return refused


def _inside(figure: Mapping[str, Any]) -> bool:
    low, high = figure["interval"]
    return (figure["worse"] == "higher" or low > -figure["margin"]) and (
        figure["worse"] == "lower" or high < figure["margin"]
    )


def headline(evidence: Mapping[str, Any]) -> str:
    """The verdict in one sentence that claims no more than [`verdict`] does."""
    models, lost = evidence["models"], damage(evidence)
    if models["unlearned"] is None:
        return "Not judged: no unlearned model was scored."
    start = f"Damaged: {lost}. " if lost else ""
    retrained = models["retrained"]
    if retrained is None:
        return f"{start}Not judged: there is no model retrained without the forgotten rows to compare with."
    if retrained["twins"] == 1:
        return f"{start}Not judged: one retrained twin shows a distance, not how far two retrainings lie apart."
    found = outcomes(evidence)
    if not found:
        return f"{start}Not judged: none of the figures was measured."
    named = {kind: [o.title for o in found if o.found == kind] for kind in (TOLD, WITHIN, OPEN)}
    twins = f"{retrained['twins']} retrained twins"
    if named[TOLD]:
        return f"{start}Told apart from {twins}: {_listed(named[TOLD])}."
    text = f"{start}Not told apart from {twins}"
    text += f"; as good as they are in {_listed(named[WITHIN])}" if named[WITHIN] else ""
    text += f"; not settled: {_listed(named[OPEN])}" if named[OPEN] else ""
    return text + (" (but doing nothing would not be told apart either)." if _tells_nothing(evidence) else ".")


def verdict(evidence: Mapping[str, Any]) -> list[str]:
    """Sentences about `evidence`, each one line; empty when no unlearned model was scored."""
    models = evidence["models"]
    if models["unlearned"] is None:
        return []
    lost = damage(evidence)
    sentences = [f"Damaged: {lost}."] if lost else []
    retrained = models["retrained"]
    if retrained is None or retrained["twins"] == 1:
        sentences.append(NO_TWIN if retrained is None else ONE_TWIN)
    else:
        sentences += judged_sentences(outcomes(evidence), retrained["twins"])
        sentences += [NOTHING] if _tells_nothing(evidence) else []
    more = (odd_words(evidence), _few_rows(evidence), dear(cost_share(evidence)))
    return sentences + [text for text in more if text]


def judged_sentences(found: Sequence[Outcome], twins: int) -> list[str]:
    """Sentences by kinds of outcomes; beside what is not settled stands what it would take."""
    sentences = []
    told = [f"{o.title} {o.distance()} ({o.interval()})" for o in found if o.found == TOLD]
    if told:
        sentences.append(f"Told apart from {twins} twins: {'; '.join(told)}.")
    within = [f"{o.title} {o.interval()} (margin {_margin(o)})" for o in found if o.found == WITHIN]
    if within:
        sentences.append(f"Within the margin: {'; '.join(within)}.")
    return sentences + _unsettled([o for o in found if o.found == OPEN])


def _unsettled(found: Sequence[Outcome]) -> list[str]:
    """What is not settled, what would have been seen, and what it would take."""
    if not found:
        return []
    needed = {o.title: o.figure["twins_needed"] for o in found}
    never = [title for title, twins in needed.items() if twins is None]
    sentences = [
        f"Not settled: {'; '.join(f'{o.title} {o.interval()} (margin {_margin(o)})' for o in found)}.",
        f"With 80 % power these would have been told apart: {'; '.join(f'{o.title} {_seen(o)}' for o in found)}.",
    ]
    if never:
        which = "any of them" if len(never) == len(found) > 1 else _listed(never)
        sentences.append(f"No number of twins settles {which} for a single run.")
    enough = [f"{title} about {twins} twins" for title, twins in needed.items() if twins is not None]
    return sentences + ([f"To settle it would take: {'; '.join(enough)}."] if enough else [])


def damage(evidence: Mapping[str, Any]) -> str | None:
    """What was lost on retained and test rows: against the twins, or where there are not two against the original. And
    losses that are no numbers, beside which figures about single rows and the attack are left out."""
    found, broken = outcomes(evidence), _not_finite(evidence["models"])
    lost = [f"{o.title} {o.distance()} the twins" for o in found if o.key in UTILITY and o.found == TOLD]
    since = _lost_since(evidence["models"]) if not found else None
    return "; ".join([*broken, *lost, *([since] if since else [])]) or None


def _not_finite(models: Mapping[str, Any]) -> list[str]:
    """The splits on which the unlearned model's mean loss is no finite number, and the original's is one."""
    original, unlearned = models["original"], models["unlearned"]
    if unlearned is None:
        return []

    def broken(model: Mapping[str, Any], split: str) -> bool:
        loss = model["loss"].get(split)
        return model["accuracy"].get(split) is not None and (loss is None or not math.isfinite(loss))

    splits = [split for split in unlearned["loss"] if broken(unlearned, split)]
    own = [split for split in splits if original is None or not broken(original, split)]
    return [f"losses of {_listed(own)} rows are not finite"] if own else []


def _lost_since(models: Mapping[str, Any]) -> str | None:
    original, unlearned = models["original"], models["unlearned"]
    if original is None or unlearned is None:
        return None
    lost = []
    for split in ("retain", "test"):
        before, after = (model["accuracy"][split] for model in (original, unlearned))
        first, second = ((model.get("intervals") or {}).get(f"{split}_accuracy") for model in (original, unlearned))
        if before is None or after is None or first is None or second is None:
            continue
        if 100 * (before - after) > LOST and second[1] < first[0]:
            lost.append(f"{split} accuracy fell from {100 * before:.1f} to {100 * after:.1f} %")
    return "; ".join(lost) or None


def cost_share(evidence: Mapping[str, Any]) -> float | None:
    """Cost of the unlearning over that of one retraining: in examples, which no machine changes, else in seconds."""
    cost = evidence["cost"]
    for unit in ("examples", "seconds"):
        if cost.get(f"unlearn_{unit}") is not None and cost.get(f"retrain_{unit}"):
            return cost[f"unlearn_{unit}"] / cost[f"retrain_{unit}"]
    return None


def dear(share: float | None) -> str | None:
    """A sentence where unlearning costs about as much as what it is to save."""
    if share is None or share < DEAR:
        return None
    much = "at most twice as much" if share < EQUAL else "as much" if share <= MORE else "less"
    return f"Retraining forgets exactly and costs {much}: the unlearning takes {100 * share:.0f} % of one retraining."


def _tells_nothing(evidence: Mapping[str, Any]) -> bool:
    found = outcomes(evidence, "original")
    return bool(found) and all(o.found != TOLD for o in found if o.key not in UTILITY)


def _margin(outcome: Outcome) -> str:
    sign = {"both": "±", "lower": "−", "higher": ""}[outcome.figure["worse"]]
    return sign + KINDS[outcome.key].write(outcome.figure["margin"])


def _seen(outcome: Outcome) -> str:
    """`3.2 points`; of a difference that cannot be, that hardly any would have been seen."""
    write, seen = KINDS[outcome.key].write, outcome.figure["seen"]
    return f"not even {FAR:.0f} points" if write is _points and seen > FAR else write(seen)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _few_rows(evidence: Mapping[str, Any]) -> str | None:
    rows = (evidence["data"]["splits"] or {}).get("forget")
    if not rows or rows >= FEW_ROWS:
        return None
    return f"Only {rows} forget rows: one of them moves an accuracy by {100 / rows:.1f} points."


def original_gap(models: Mapping[str, Any]) -> dict[str, float | None]:
    """The gap of doing nothing, in the keys and units of the evidence's `gap`."""
    original, retrained = models["original"], models["retrained"]
    result: dict[str, float | None] = {}
    for key in ("forget_accuracy", "retain_accuracy", "test_accuracy", "membership"):
        part, figure = ("membership", "loss_auc") if key == "membership" else ("accuracy", key.split("_")[0])
        before, twins = (None if model is None else model[part][figure] for model in (original, retrained))
        result[key] = None if before is None or twins is None else 100 * abs(before - twins)
    known = [value for value in result.values() if value is not None]
    result["average"] = sum(known) / 4 if len(known) == 4 else None
    return result
