"""The durability grid on the page: cells coloured by how far the unlearned model stands from its twins."""

from collections.abc import Mapping
from html import escape
from typing import Any

from hf_unlearn.report import plots as draw
from hf_unlearn.report.page import paragraph, plot, plots, table
from hf_unlearn.report.robustness import (
    FIGURES,
    MARK,
    OVER_STEPS,
    WEIGHTS,
    grid,
    robustness_rows,
    sentences,
    signed,
    twins_text,
)
from hf_unlearn.report.table import ABSENT

ORANGE, BLUE = "213, 94, 0", "0, 114, 178"  # of the original and of the unlearned model in the plots
STRONGEST = 0.6  # opacity of full colour: text must stay legible on it
# By figure: the difference of full colour, and whether a higher value says that more is remembered.
COLOURED = {"forget_accuracy": (0.2, True), "membership_auc": (0.2, True), "forget_loss": (1.0, False)}
SHOWN = ("forget_accuracy", "membership_auc")
LEGEND = (
    "Each cell: unlearned minus twins, then the unlearned model, the twins' mean with the lowest and the highest, and "
    "the original. Orange: it remembers more than its twins, blue: less; full colour at 20 points, of losses at 1 nat."
)


def durability(block: Mapping[str, Any] | None) -> str:
    """The section's body: sentences, heat maps, the curves over steps, and every figure as a table."""
    if not block:
        return ""
    more = [heat_map(block, key) for key in COLOURED if key not in SHOWN]
    utility = table(robustness_rows(block, ("unseen_accuracy", "test_accuracy")), "What is left of the model")
    return "\n".join(
        [
            *(paragraph(sentence) for sentence in sentences(block)),
            *(heat_map(block, key) for key in SHOWN),
            paragraph(f"{LEGEND} {MARK}", "muted"),
            _curves(block),
            f"<details><summary>Losses, and what is left of the model</summary>{''.join(more)}{utility}</details>",
            paragraph(_quantized(block), "muted"),
        ]
    )


def heat_map(block: Mapping[str, Any], key: str) -> str:
    """The grid of one figure, kinds of rows by kinds of weights."""
    name, show = FIGURES[key]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("", *WEIGHTS.values()))
    lines = []
    for title, cells in grid(block, key):
        filled = "".join(_cell(found, key, show) for found in cells)
        lines.append(f'<tr><th scope="row">{escape(title)}</th>{filled}</tr>')
    if not lines:
        return ""
    caption = escape(f"{name[0].upper()}{name[1:]}, unlearned beside twins")
    return (
        f'<p><strong>{caption}.</strong></p>\n<div class="wide" tabindex="0" role="region" aria-label="{caption}">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def _cell(found: Mapping[str, Any] | None, key: str, show) -> str:
    if found is None:
        return f"<td>{ABSENT}</td>"
    background = colour(found["difference"], *COLOURED[key])
    style = f' style="background: {background}"' if background else ""
    beside = (f"twins {twins_text(found['twins'], show)}", f"original {show(found['original'])}")
    small = "".join(f'<span class="interval">{escape(text)}</span>' for text in beside)
    first = f"<strong>{escape(signed(found, show))}</strong> · " if found["difference"] is not None else ""
    return f"<td{style}>{first}{escape(show(found['unlearned']))}{small}</td>"


def colour(difference: float | None, full: float, higher_is_more: bool) -> str:
    """A background by the size and the sign of a difference; none for none."""
    if not difference:
        return ""
    opacity = round(STRONGEST * min(1.0, abs(difference) / full), 2)
    shade = ORANGE if (difference > 0) == higher_is_more else BLUE
    return f"rgba({shade}, {opacity:.2f})" if opacity else ""


def _curves(block: Mapping[str, Any]) -> str:
    curve, figures = block["curve"], []
    for key in OVER_STEPS:
        name, show = FIGURES[key]
        found = curve["figures"][key]
        values = {"unlearned": found["unlearned"], "twins": (found["twins"] or {}).get("mean")}
        known = {model: line for model, line in values.items() if line}
        last = ", ".join(f"{model} {show(line[-1])}" for model, line in known.items())
        alt = escape(f"{name} over {curve['steps'][-1]} steps of relearning. Last: {last}.")
        svg = draw.svg(draw.step_curves(curve, key, name), f"steps-{key.replace('_', '-')}", alt)
        figures.append(plot(svg, f"{name[0].upper()}{name[1:]} over the steps", f"Last: {last}."))
    return plots(figures)


def _quantized(block: Mapping[str, Any]) -> str:
    named = {"int8": "8 bits", "nf4": "4 bits"}
    parts = [f"{named.get(key, key)}: {text}" for key, text in block["quantized"].items()]
    return f"Quantized: {'; '.join(parts)}. Activations are not quantized."
