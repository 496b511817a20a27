"""The model card: what was forgotten and how, the figures, and what they do not promise."""

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from hf_unlearn.report.table import remarks, render_markdown

PIPELINES = {
    "image_classification": "image-classification",
    "text_classification": "text-classification",
    "causal_lm": "text-generation",
}
EXAMPLE_INPUT = {
    "image-classification": "image.png",
    "text-classification": "Some text.",
    "text-generation": "A question?",
}
REQUESTS = {
    "classes": "whole classes",
    "fraction": "a random share",
    "ids": "by id",
    "where": "by the value of a column",
    "dataset": "a data set of its own",
}
LIMITS = (
    "Unlearning here is approximate: no certificate says that nothing of the forgotten rows is left. The figures hold "
    "for the attacks, rows and seeds of this run; a stronger attack may find more."
)
ADAPTER = (
    "These files are an adapter: it removes nothing from its base model, and whoever switches it off has that base."
)


def render_card(
    evidence: Mapping[str, Any],
    *,
    base_model: str | None = None,
    license: str | None = None,
    library_name: str = "transformers",
    model_id: str = "path/to/this/model",
) -> str:
    """README.md for the Hub: YAML front matter and a short text, without rows, their ids or the request's values.

    Args:
        base_model: the model that was given; named only when it is a Hub id, a local path stays private.
        license: of the model, in the Hub's spelling.
        library_name: `"transformers"`, or `"peft"` when an adapter is saved.
        model_id: what the usage snippet loads.
    """
    method, pipeline = evidence["method"], PIPELINES.get(evidence["task"])
    front = {
        "library_name": library_name,
        "license": license,
        "base_model": hub_id(base_model),
        "pipeline_tag": pipeline,
        "tags": ["unlearning", "hf_unlearn", method["name"]],
    }
    front_text = yaml.safe_dump({key: value for key, value in front.items() if value is not None}, sort_keys=False)
    parts = [
        f"---\n{front_text}---",
        f"# A model that had to forget ({method['name']})",
        forgotten(evidence),
        "## Figures",
        render_markdown(evidence),
        "\n".join(f"- {line}" for line in remarks(evidence)),
        "## Limits",
        " ".join([LIMITS, ADAPTER] if library_name == "peft" else [LIMITS]),
    ]
    if pipeline is not None:
        parts += ["## Use", usage(pipeline, model_id)]
    parts += ["## Made with", versions(evidence)]
    return "\n\n".join(parts) + "\n"


def forgotten(evidence: Mapping[str, Any]) -> str:
    """What the request was, by its kind and counts; never by its values."""
    data, method = evidence["data"], evidence["method"]
    forget, retain = (data["splits"].get(name) for name in ("forget", "retain"))
    request = data.get("request") or {}
    how = REQUESTS.get(request.get("kind"))
    if request.get("classes"):  # there only where the user agreed to publish the request
        how = f"classes: {', '.join(request['classes'])}"
    count = "Rows" if forget is None else f"{forget:,} training rows"
    others = "" if forget is None or retain is None else f" of {forget + retain:,}"
    source = hub_id(data.get("source"))
    text = f"{count}{others} were to be forgotten" + (f" ({how})" if how else "")
    text += f", data set [{source}](https://huggingface.co/datasets/{source})." if source and "/" in source else "."
    return f"{text} Method: {method['name']}{cited(method.get('paper'))}."


def cited(paper: Mapping[str, str] | None) -> str:
    """A method's paper as a reference with its link."""
    if not paper:
        return ""
    number = paper["id"].removeprefix("arXiv:")
    return f", after {paper['authors']} {paper['year']}, [{paper['title']}](https://arxiv.org/abs/{number})"


def usage(pipeline: str, model_id: str) -> str:
    return (
        "```python\nfrom transformers import pipeline\n\n"
        f'model = pipeline("{pipeline}", model="{model_id}")\n'
        f'print(model("{EXAMPLE_INPUT[pipeline]}"))\n```'
    )


def versions(evidence: Mapping[str, Any]) -> str:
    environment = evidence["environment"]
    packages = {"python": environment.get("python")} | dict(environment.get("packages") or {})
    named = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return f"{named}; seed {environment.get('seed')}."


def hub_id(name: Any) -> str | None:
    """`name` if it can be the id of a model or data set on the Hub, and no folder of this machine; else `None`."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or os.path.exists(name):
        return None
    return name
