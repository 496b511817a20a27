"""The model card: what was forgotten and how, the figures, and what they do not promise."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_unlearn.errors import UserError
from hf_unlearn.report.card_durability import durability_markdown
from hf_unlearn.report.drawn import caption
from hf_unlearn.report.table import remarks, render_markdown, unit_of
from hf_unlearn.tasks import get_task

if TYPE_CHECKING:
    from hf_unlearn.tasks.base import Task

PLACEHOLDER = "path/to/this/model"  # what a push replaces with the repository's name
REQUESTS = {
    "classes": "whole classes",
    "fraction": "a random share",
    "ids": "by id",
    "where": "by the value of a column",
    "dataset": "a data set of its own",
    "rows": "chosen rows",
}
LIMITS = (
    "This is approximate unlearning; not a certified guarantee. The figures hold for the attacks, rows and seeds of "
    "this run; a stronger attack may find more."
)
ADAPTER_LIMIT = (
    "These files are an adapter: it removes nothing from its base model, and whoever switches it off has that base."
)
ADDED = "That base still holds the forgotten rows."
GIVEN = "The adapter came with the model: it alone is taken to have learned the forgotten rows, not the base."


def render_card(
    evidence: Mapping[str, Any],
    *,
    base_model: str | None = None,
    license: str | Mapping[str, str] | None = None,
    library_name: str = "transformers",
    model_id: str = PLACEHOLDER,
    picture: str | None = None,
    drawn: str | None = None,
    num_labels: int | None = None,
    grey: bool = False,
) -> str:
    """README.md for the Hub: YAML front matter and a short text, without rows, their ids or the request's values.

    Args:
        base_model: the model that was given; named only when it is a Hub id, a local path stays private.
        license: of the model, in the Hub's spelling, or what [`base_license`] returns.
        library_name: `"transformers"`, or `"peft"` when an adapter is saved.
        model_id: what the usage snippet loads.
        picture: of the forgotten rows' losses before and after, as a path relative to the card.
        drawn: of images that the models drew, likewise.
        num_labels: of a classifier; an adapter records it nowhere, and its snippet needs it.
        grey: whether a model of images reads one channel, which pipelines do not give.
    """
    task, is_adapter = task_of(evidence), library_name == "peft"
    parts = [
        f"---\n{front_matter(evidence, base_model, license, library_name, model_id)}\n---",
        f"# {_title(evidence, base_model)}",
        forgotten(evidence),
        "## Figures",
        render_markdown(evidence),
        "\n".join(f"- {line}" for line in remarks(evidence)),
    ]
    if picture is not None:
        parts.append(f"![Losses of the forgotten rows, before and after]({picture})")
    if drawn is not None:
        parts += [f"![Images of the same seeds]({drawn})", caption(evidence["drawn"])]
    parts += durability_markdown(evidence.get("stress"))
    parts += ["## Limits", " ".join([LIMITS, *adapter_limits(evidence)] if is_adapter else [LIMITS])]
    if task is not None:
        snippet = adapter_usage(task, model_id, num_labels) if is_adapter else usage(task, model_id, grey)
        parts += ["## Use", f"```python\n{snippet}\n```"]
    if citation := bibtex(evidence["method"].get("paper")):
        parts += ["## Citation", f"```bibtex\n{citation}\n```"]
    parts += ["## Made with", versions(evidence)]
    return "\n\n".join(parts) + "\n"


def _title(evidence: Mapping[str, Any], base_model: str | None) -> str:
    """The model's name where it has a public one, else what it was made for."""
    base, task = hub_id(base_model), str(evidence["task"]).replace("_", " ")
    name = base or f"{dataset_name(evidence)} ({task})"
    method = evidence["method"]["name"]
    return f"{name}, {'unlearned' if method == 'made elsewhere' else f'unlearned with {method}'}"


def front_matter(
    evidence: Mapping[str, Any],
    base_model: str | None,
    license: str | Mapping[str, str] | None,
    library_name: str,
    model_id: str,
) -> str:
    """What the Hub reads: names, tags and the figures per split as `model-index`, in YAML."""
    from huggingface_hub import ModelCardData

    base, data, task = hub_id(base_model), dataset_id(evidence), task_of(evidence)
    results = eval_results(evidence)
    licenses = {"license": license} if isinstance(license, str) else dict(license or {})
    front: dict[str, Any] = {
        "library_name": library_name,
        **licenses,
        "base_model": base,
        "base_model_relation": base and ("adapter" if library_name == "peft" else "finetune"),
        "datasets": [data] if data else None,
        "pipeline_tag": task and task.pipeline_tag,
        "tags": list(dict.fromkeys(["unlearning", evidence["method"]["name"], "hf_unlearn"])),
        "metrics": sorted({result.metric_type for result in results} - {"loss"}) or None,
        "model_name": model_id if results else None,
        "eval_results": results or None,
    }
    return ModelCardData(**{key: value for key, value in front.items() if value is not None}).to_yaml()


def eval_results(evidence: Mapping[str, Any]) -> list:
    """The unlearned model's figures, one `EvalResult` per split and metric; those that are unknown are left out."""
    from huggingface_hub import EvalResult

    model, task = evidence["models"]["unlearned"], task_of(evidence)
    if model is None or task is None:
        return []
    unit = task.accuracy_name
    figures = [(split, "accuracy", f"{unit}, {split} rows", value) for split, value in model["accuracy"].items()]
    figures += [
        (split, "loss", f"loss in {unit_of(evidence, 'loss')}, {split} rows", value)
        for split, value in model["loss"].items()
    ]
    for key, value in (model.get("f1") or {}).items():
        split, average, _ = key.split("_")
        figures.append((split, "f1", f"{average} F1, {split} rows", value))
    figures.append(("forget", "roc_auc", "membership AUC of the loss", model["membership"]["loss_auc"]))
    source = dataset_id(evidence)
    return [
        EvalResult(
            task_type=task.pipeline_tag,
            dataset_type=source or "local",
            dataset_name=source or dataset_name(evidence),
            dataset_split=split,
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for split, metric, name, value in figures
        if value is not None
    ]


def forgotten(evidence: Mapping[str, Any]) -> str:
    """What the request was, by its kind and counts; never by its values."""
    data, method = evidence["data"], evidence["method"]
    forget, retain = (data["splits"].get(name) for name in ("forget", "retain"))
    request = data.get("request") or {}
    how = REQUESTS.get(str(request.get("kind")))
    task = task_of(evidence)
    labels = request.get("kind") == "classes" and task is not None and task.has_label_sets
    if labels:
        how = "all with certain labels"
    if request.get("classes"):  # there only where the user agreed to publish the request
        how = f"{'labels' if labels else 'classes'}: {', '.join(request['classes'])}"
    count = "Rows" if forget is None else f"{forget:,} training rows"
    others = "" if forget is None or retain is None else f" of {forget + retain:,}"
    source = dataset_id(evidence)
    text = f"{count}{others} were to be forgotten" + (f" ({how})" if how else "")
    text += f", data set [{source}](https://huggingface.co/datasets/{source})." if source else "."
    return f"{text} Method: {method['name']}{cited(method.get('paper'))}."


def cited(paper: Mapping[str, str] | None) -> str:
    """A method's paper as a reference with its link."""
    if not paper:
        return ""
    number = paper["id"].removeprefix("arXiv:")
    return f", after {short_authors(paper['authors'])} {paper['year']}, [{paper['title']}](https://arxiv.org/abs/{number})"


def short_authors(authors: str) -> str:
    """`Ada Lovelace, Alan Turing, Grace Hopper` as `Lovelace et al.`; two as `Lovelace and Turing`."""
    if authors.endswith("et al."):
        return authors
    names = [name.split()[-1] for name in authors.split(", ")]
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


def bibtex(paper: Mapping[str, str] | None) -> str | None:
    """A method's paper as a BibTeX entry."""
    if not paper:
        return None
    authors = re.sub(r",?\s+et al\.?$", " and others", paper["authors"]).replace(", ", " and ")
    number = paper["id"].removeprefix("arXiv:")
    fields = {
        "title": paper["title"],
        "author": authors,
        "year": paper["year"],
        "eprint": number,
        "archivePrefix": "arXiv",
        "url": f"https://arxiv.org/abs/{number}",
    }
    key = re.sub(r"\W", "", authors.split(" and ")[0].split()[-1]).lower() + paper["year"]
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"


def adapter_limits(evidence: Mapping[str, Any]) -> list[str]:
    """What an adapter does not do, and what is known of its base."""
    return [ADAPTER_LIMIT, GIVEN if came_with_adapter(evidence) else ADDED]


def came_with_adapter(evidence: Mapping[str, Any]) -> bool:
    """Whether the model was given with its adapter, so that its base may never have seen the forgotten rows."""
    return bool((evidence["model"].get("peft") or {}).get("given"))


def task_of(evidence: Mapping[str, Any]) -> "type[Task] | None":
    """The task's class; `None` where it comes from a package that is not installed here."""
    try:
        return get_task(evidence["task"])
    except UserError:
        return None


def usage(task: "type[Task]", model_id: str, grey: bool = False) -> str:
    """Python that loads the model and runs it once."""
    if own := task.usage(model_id):
        return own
    if grey:
        return (
            f"from PIL import Image\nfrom transformers import AutoImageProcessor, {task.auto_class}\n\n"
            f'model = {task.auto_class}.from_pretrained("{model_id}")\n'
            f'image = Image.open("{task.example_input}").convert("L")  # the model reads grey images\n'
            f'inputs = AutoImageProcessor.from_pretrained("{model_id}")(image, return_tensors="pt")\n'
            "print(model.config.id2label[model(**inputs).logits.argmax().item()])"
        )
    return (
        f"from transformers import pipeline\n\nmodel = "
        f'pipeline("{task.pipeline_tag}", model="{model_id}"{task.pipeline_options})\n'
        f'print(model("{task.example_input}"))'
    )


def adapter_usage(task: "type[Task]", model_id: str, num_labels: int | None = None) -> str:
    """Python that loads the base, puts the adapter on it and runs it once."""
    auto, processor = task.auto_class, task.processor_argument
    labels = f", num_labels={num_labels}, ignore_mismatched_sizes=True" if num_labels else ""
    return (
        f"from peft import PeftConfig, PeftModel\nfrom transformers import {auto}, pipeline\n\n"
        f'adapter = "{model_id}"\nbase = PeftConfig.from_pretrained(adapter).base_model_name_or_path\n'
        f"model = PeftModel.from_pretrained({auto}.from_pretrained(base{labels}), adapter).merge_and_unload()\n"
        f'model = pipeline("{task.pipeline_tag}", model=model, {processor}=adapter{task.pipeline_options})\n'
        f'print(model("{task.example_input}"))'
    )


def versions(evidence: Mapping[str, Any]) -> str:
    environment = evidence["environment"]
    packages = {"python": environment.get("python")} | dict(environment.get("packages") or {})
    named = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return f"{named}; seed {environment.get('seed')}."


def base_license(name_or_path: str | None) -> dict[str, str]:
    """The licence that a model's own card names: `license`, and `license_name` and `license_link` if there.

    Reads the card in the model's folder, or that of a Hub model if it is in the cache. Nothing is fetched and nothing
    is guessed: empty where no card says it.
    """
    import yaml

    card = _card_of(name_or_path)
    found = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S) if card else None
    try:
        front = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError:
        front = None
    keys = ("license", "license_name", "license_link")
    named = {key: front[key] for key in keys if isinstance(front.get(key), str)} if isinstance(front, dict) else {}
    return named if "license" in named else {}


def _card_of(name_or_path: str | None) -> Path | None:
    if not name_or_path:
        return None
    if os.path.isdir(name_or_path):
        card = Path(name_or_path) / "README.md"
        return card if card.is_file() else None
    if hub_id(name_or_path) is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name_or_path, "README.md")
    return Path(cached) if isinstance(cached, str) else None


def dataset_id(evidence: Mapping[str, Any]) -> str | None:
    """The data set's id on the Hub, if it comes from there."""
    source = hub_id(evidence["data"].get("source"))
    return source if source and "/" in source else None


def dataset_name(evidence: Mapping[str, Any]) -> str:
    """What to call data that is not on the Hub: the name the evidence has for it, unless that is a path."""
    source = evidence["data"].get("source")
    return source if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*", source) else "local data"


def hub_id(name: Any) -> str | None:
    """`name` if it can be the id of a model or data set on the Hub, and no folder of this machine; else `None`."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or os.path.exists(name):
        return None
    return name
