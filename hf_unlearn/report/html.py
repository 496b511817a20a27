"""`report.html`: the evidence as one self-contained page."""

from collections.abc import Mapping
from html import escape
from typing import Any

from hf_unlearn.report import plots as draw
from hf_unlearn.report.answers import answer_rows
from hf_unlearn.report.card import REQUESTS, hub_id, short_authors
from hf_unlearn.report.drawn import caption, drawn_sentences, picture_of
from hf_unlearn.report.evidence import plain
from hf_unlearn.report.heat_map import durability
from hf_unlearn.report.language import language_rows
from hf_unlearn.report.page import bullets, page, paragraph, plot, plots, section, table
from hf_unlearn.report.sampled import sampled_words
from hf_unlearn.report.shadow_table import sentences, shadow_rows
from hf_unlearn.report.table import ABSENT, legend, number, percent, table_rows
from hf_unlearn.report.unchecked import unchecked
from hf_unlearn.report.verdict import headline, verdict

REMOVED_UNSEEN = "Unseen rows of the removed classes"
SHADOWS = (
    "original: before any unlearning. twins: exact retraining, which shows chance. In RULI's privacy game an outsider"
    " has the unlearned model alone; its efficacy game tells unlearned models from retrained ones, as KLoM does."
)
LEAST_ROC = 30  # rows on either side: below, a curve on logarithmic scales is a few steps of chance
ROLES = {"forget": "Forget rows", "retain": "Retain rows", "unseen": "Unseen rows"}
ROW_FIGURES = {
    "rms z": ("rms_z", number),
    "still remembered (z above 2, % of rows)": ("remembered", percent),
    "over-forgotten (z below −2, % of rows)": ("over_forgotten", percent),
}


def render_html(evidence: Mapping[str, Any]) -> str:
    """The report as a page that needs no network, the same each time; all that comes from `evidence` is escaped."""
    evidence = plain(evidence)
    title = f"Unlearning report: {evidence['method']['name']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        _summary(evidence),
        paragraph(headline(evidence), "verdict"),
        bullets(verdict(evidence)),
        section(
            "Figures",
            _figures(evidence),
            paragraph(legend(evidence, costs=False), "muted"),
            bullets([*sampled_words(evidence), *(evidence["notes"] or [])]),
        ),
        section("Drawn images", _drawn(evidence.get("drawn"))),
        section("Losses", _losses(evidence)),
        section("Membership attacks", _attacks(evidence)),
        section("Row by row", _rows(evidence)),
        section("Language model", _language(evidence.get("language"))),
        section("Answers", _answers(evidence.get("answers"))),
        section("Shadow models", _shadows(evidence.get("lira"))),
        section("Does it come back?", durability(evidence.get("stress"))),
        section("Over the training", _training(evidence)),
        section("Cost", _cost(evidence)),
        section("Not checked", bullets(unchecked(evidence))),
        section("How it was made", _made(evidence)),
    ]
    return page(title, "\n".join(part for part in sections if part))


def render_cell(evidence: Mapping[str, Any]) -> str:
    """The head of the report, for the output of a notebook's cell, which brings its own style."""
    evidence = plain(evidence)
    parts = [
        _summary(evidence),
        f"<p><strong>{escape(headline(evidence))}</strong></p>",
        _figures(evidence),
        paragraph(legend(evidence, costs=False)),
        bullets([*verdict(evidence), *sampled_words(evidence), *(evidence["notes"] or [])]),
    ]
    return "<div>\n" + "\n".join(parts) + "\n</div>"


def _summary(evidence: Mapping[str, Any]) -> str:
    """What was asked, by its kind and counts, and the method with its paper."""
    data, method, model = evidence["data"], evidence["method"], evidence["model"]
    splits, request = data["splits"] or {}, data["request"] or {}
    forget, retain = splits.get("forget"), splits.get("retain")
    text = "Rows" if forget is None else f"{forget:,} training rows"
    text += "" if forget is None or retain is None else f" of {forget + retain:,}"
    how = REQUESTS.get(str(request.get("kind")))
    text += " were to be forgotten" + (f" ({how})" if how else "")
    source = hub_id(data["source"])
    text += f", data set {source}" if source else ""
    text += f". Task: {str(evidence['task']).replace('_', ' ')}."
    if model["parameters"] is not None:
        text += (
            f" The model has {model['parameters']:,} weights, {model['trainable_parameters'] or 0:,} of them trained."
        )
    return f"<p>{escape(text)} Method: {escape(str(method['name']))}{_paper(method['paper'])}.</p>"


def _paper(paper: Mapping[str, str] | None) -> str:
    if not paper:
        return ""
    address = "https://arxiv.org/abs/" + str(paper.get("id", "")).removeprefix("arXiv:")
    cited = f"{short_authors(str(paper.get('authors')))} {paper.get('year')}"
    return f', after {escape(cited)}, <a href="{escape(address)}">{escape(str(paper.get("title")))}</a>'


def _figures(evidence: Mapping[str, Any]) -> str:
    rows = [
        row for row in table_rows(evidence, intervals=True) if not row[0].startswith(("seconds", "examples", "peak"))
    ]
    rows = [(row[0].replace("  level", "rms z, level"), *row[1:]) for row in rows]
    caption = "In brackets: 95 % intervals over rows, for these models"
    if ((evidence["models"]["retrained"] or {}).get("twins") or 0) > 1:
        caption += "; of the twins, the lowest and the highest"
    return table(rows, caption)


def _losses(evidence: Mapping[str, Any]) -> str:
    found = (evidence.get("distributions") or {}).get("loss")
    if not found:
        return ""
    models = evidence["models"]
    figures = []
    for role, title in ROLES.items():
        counts = {name: sum(roles[role]) for name, roles in found["counts"].items()}
        if any(counts.values()):
            title = REMOVED_UNSEEN if role == "unseen" and _own_unseen(models) else title
            alt = f"Histogram of the losses of {title.lower()} under {_listed(counts)}. {_means(models, role)}"
            svg = draw.svg(draw.loss_histogram(found, role), f"loss-{role}", escape(alt))
            figures.append(plot(svg, title, _means(models, role)))
    hint = "Both scales are logarithmic."
    if "twins" in found["counts"]:
        hint += " Twins are pooled: forgotten rows should have the shape of theirs."
    return plots(figures) + paragraph(hint, "muted")


def _own_unseen(models: Mapping[str, Any]) -> bool:
    """Whether unseen rows are not the test rows: those of a removed class."""
    return any(model and "nonmembers" in model["loss"] for model in models.values())


def _means(models: Mapping[str, Any], role: str) -> str:
    if role == "unseen":
        role = "nonmembers" if _own_unseen(models) else "test"
    named = {"original": "original", "unlearned": "unlearned", "retrained": "twins"}
    means = {label: models[name]["loss"].get(role) for name, label in named.items() if models[name]}
    means = {label: value for label, value in means.items() if value is not None}
    of = {"test": " of test rows", "nonmembers": " of these"}.get(role, "")
    return (
        f"Mean loss{of}: " + ", ".join(f"{name} {value:.3g}" for name, value in means.items()) + "." if means else ""
    )


def _attacks(evidence: Mapping[str, Any]) -> str:
    parts = []
    roc = (evidence.get("distributions") or {}).get("roc")
    if roc and min(roc["members"], roc["nonmembers"]) < LEAST_ROC:
        few = f"No ROC curve: there are {roc['members']} forget rows and {roc['nonmembers']} unseen ones."
        parts.append(paragraph(f"{few} {_aucs(evidence)}", "muted"))
    elif roc:
        alt = f"ROC curves of the loss attack on logarithmic scales, for {_listed(roc['tpr'])}. {_aucs(evidence)}"
        caption = f"Who calls rows of low loss forget rows finds this share. {_aucs(evidence)}"
        caption += " The band is the range of the twins." if roc["twins_range"] else ""
        figure = plot(draw.svg(draw.roc_curves(roc), "roc", escape(alt)), "ROC of the loss attack", caption)
        parts.append(plots([figure]))
    figures = (evidence.get("attacks") or {}).get("figures")
    if figures:
        rows = [("", "original", "unlearned", "twins", "alike")]
        for name, block in figures.items():
            cells = [_figure(block.get(model)) for model in ("original", "unlearned", "twins")]
            rows.append((name, *cells, percent((block.get("unlearned") or {}).get("null"), 1)))
        rows = [row for row in rows if row[0] == "" or set(row[1:4]) != {ABSENT}]
        parts.append(table(rows, "In percent, with 95 % intervals; “alike”: where members and unseen rows are alike"))
    return "\n".join(parts)


def _aucs(evidence: Mapping[str, Any]) -> str:
    named = {"original": "original", "unlearned": "unlearned", "retrained": "twins"}
    found = {label: evidence["models"][name] for name, label in named.items()}
    areas = {label: model["membership"]["loss_auc"] for label, model in found.items() if model}
    known = ", ".join(f"{label} {percent(area, 1)} %" for label, area in areas.items() if area is not None)
    return f"Area under the curve: {known}." if known else ""


def _figure(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("value") is None:
        return ABSENT
    interval = found.get("interval")
    return percent(found["value"], 1) + (f" [{', '.join(percent(end, 1) for end in interval)}]" if interval else "")


def _rows(evidence: Mapping[str, Any]) -> str:
    models = [evidence["models"][name] for name in ("original", "unlearned", "retrained")]
    rows: list[tuple[str, ...]] = [("", "original", "unlearned", "twins")]
    for label, (key, written) in ROW_FIGURES.items():
        for corrected in (False, True):
            blocks = [m and (m["rows"]["level_corrected"] if corrected else m["rows"]) for m in models]
            cells = [ABSENT if block is None else written(block[key]) for block in blocks]
            rows.append((label + (", level-corrected" if corrected else ""), *cells))
    if all(set(cells) == {ABSENT} for _, *cells in rows[1:]):
        return ""
    intro = (
        "z: how far a row's log-odds lie from what twins give it, in standard deviations between twins; another twin "
        "has an rms z of about 1. Level-corrected: less the shift that test rows show as well."
    )
    parts = [paragraph(intro, "muted"), table(rows, "Forget rows against the twins, and each twin against the others")]
    found = (evidence.get("distributions") or {}).get("row_z")
    if found:
        alt = f"Histogram of row z-scores of {_listed(found['counts'])}, with marks at −2 and 2."
        svg = draw.svg(draw.row_z_histogram(found), "row-z", escape(alt))
        parts.append(plots([plot(svg, "z of each forget row", "Rows beyond ±8 stand in the outermost bins.")]))
    return "\n".join(parts)


def _training(evidence: Mapping[str, Any]) -> str:
    curves = (evidence.get("training") or {}).get("curves") or {}
    curves = {name: curve for name, curve in curves.items() if len(curve["step"]) > 1}
    panels = {
        "Loss in training": ("nats", ("loss", "forget_loss", "retain_loss")),
        "Loss on evaluated rows": ("nats", ("eval_forget_loss", "eval_retain_loss", "eval_test_loss")),
        "Accuracy on evaluated rows": (
            "share",
            ("eval_forget_accuracy", "eval_retain_accuracy", "eval_test_accuracy", "eval_membership_auc"),
        ),
        "Learning rate": ("", ("learning_rate",)),
    }
    figures = []
    for title, (label, names) in panels.items():
        found = {name.removeprefix("eval_").replace("_", " "): curves[name] for name in names if name in curves}
        if found:
            last = ", ".join(f"{name} {curve['value'][-1]:.3g}" for name, curve in found.items() if _last(curve))
            alt = f"{title} over the steps. Last: {last}."
            identity = title.lower().replace(" ", "-")
            figures.append(plot(draw.svg(draw.curves(found, label), identity, escape(alt)), title))
    return plots(figures)


def _last(curve: Mapping[str, Any]) -> bool:
    return curve["value"][-1] is not None


def _cost(evidence: Mapping[str, Any]) -> str:
    cost, figures = evidence["cost"], []
    titles = {"seconds": "Time", "examples": "Rows that went through a model"}
    for unit, title in titles.items():
        keys = {"original": f"original_{unit}", "unlearning": f"unlearn_{unit}", "one retraining": f"retrain_{unit}"}
        known = {name: cost[key] for name, key in keys.items() if cost.get(key) is not None}
        if known:
            written = ", ".join(f"{name} {value:,.1f}" for name, value in known.items())
            svg = draw.svg(draw.cost_bars(known, unit), f"cost-{unit}", escape(f"{title} in {unit}: {written}."))
            share = (
                known["unlearning"] / known["one retraining"]
                if {"unlearning", "one retraining"} <= known.keys()
                else 0
            )
            figures.append(
                plot(svg, title, f"Unlearning took {percent(share, 0)} % of one retraining." if share else "")
            )
    more = [f"{cost['steps']:,} steps" if cost.get("steps") is not None else ""]
    more += [f"peak memory {cost['peak_memory_mb']:,.0f} MB" if cost.get("peak_memory_mb") is not None else ""]
    words = ", ".join(text for text in more if text)
    return plots(figures) + (paragraph(f"Unlearning: {words}.", "muted") if words else "")


def _language(block: Any) -> str:
    rows = language_rows(block)
    return table(rows, "Per row and averaged; in brackets 95 % intervals, of twins the range") if rows else ""


def _drawn(block: Any) -> str:
    picture = picture_of(block)
    if picture is None:
        return bullets(drawn_sentences(block)) if block else ""
    image = f'<img alt="Images of the same seeds" style="width: 100%" src="data:image/png;base64,{picture}">'
    return plot(image, "Images of the same seeds", caption(block)) + bullets(drawn_sentences(block))


def _answers(block: Any) -> str:
    rows = answer_rows(block)
    caption = "What the models answer, greedily; repetition: share of repeated triples of words"
    return table(rows, caption) if rows else ""


def _shadows(block: Any) -> str:
    rows = shadow_rows(block)
    if not rows:
        return ""
    caption = (
        "Is a row that was unlearned told from one that was never there? In brackets 95 % intervals; of KLoM and ε, "
        "medians over rows, the 95th percentile and what the median is by chance"
    )
    return "\n".join([*map(paragraph, sentences(block)), table(rows, caption), paragraph(SHADOWS, "muted")])


def _made(evidence: Mapping[str, Any]) -> str:
    environment = evidence["environment"]
    versions = {"python": environment["python"]} | dict(environment["packages"] or {})
    rows = [("", "version"), *((name, str(version or "not installed")) for name, version in versions.items())]
    others = [(key, str(value)) for key, value in environment.items() if key not in ("python", "packages")]
    settings = [(str(key), str(value)) for key, value in (evidence["method"]["hyperparameters"] or {}).items()]
    parts = [table([("", "value"), *others], "Machine and seed", kind="text")]
    for title, body in (("Versions", rows), ("Hyperparameters", [("", "value"), *settings])):
        if len(body) > 1:
            parts.append(f"<details><summary>{title}</summary>{table(body, title, kind='text')}</details>")
    return "\n".join(parts)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
