"""The one builder of evidence: what was done and how three kinds of model score, as the blocks of the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_unlearn.evaluation.attack_comparison import compare_attacks
from hf_unlearn.evaluation.comparison import ModelScores, compare
from hf_unlearn.evaluation.distributions import distributions
from hf_unlearn.evaluation.judged_figures import not_finite
from hf_unlearn.evaluation.said_instead import said_instead_block
from hf_unlearn.evaluation.sampled import sampled_block
from hf_unlearn.models import lora
from hf_unlearn.report.blocks import Cost, Data, Evidence, Method, Model, Seeds
from hf_unlearn.report.evidence import build_evidence, environment

SCORED = ("forget", "retain", "test", "nonmembers")
SAID = ("forget",)  # where it matters which words a language model says


@dataclass
class Scored:
    """Scores over the splits `SCORED`. The original's may be unknown; twins are models without the forget rows."""

    original: ModelScores | None
    unlearned: ModelScores
    twins: list[ModelScores] = field(default_factory=list)


def make_evidence(
    scored: Scored,
    *,
    method: Method,
    task: str,
    model: Model,
    data: Data,
    seeds: Seeds,
    device: torch.device,
    cost: Cost | Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    classifiers: bool = False,
    units: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Evidence:
    """Everything a run can show, in one dict.

    Args:
        method, task, model, data, seeds, cost, recipe, training, notes: as for [`build_evidence`].
        device: that the models ran on.
        units: the task's [`Task.units`].
        classifiers: also the membership attacks that train a classifier.
    """
    models = (scored.original, scored.unlearned, scored.twins)
    evidence = build_evidence(
        method=method,
        task=task,
        model=model,
        data=data,
        comparison=compare(*models),
        cost=cost or {},
        distributions=distributions(*models),
        attacks=compare_attacks(*models, classifiers=classifiers, seed=seeds["run"] or 0),
        training=training,
        recipe=recipe,
        seeds=seeds,
        environment=environment(seed=seeds["run"], device=device_name(device)),
        notes=[*notes, *not_finite(scored.unlearned, scored.twins)],
    )
    if units:
        evidence["units"] = dict(units)
    sampled = sampled_block(*models, evidence["data"]["splits"])
    if sampled is not None:
        evidence["sampled"] = sampled
    said = said_instead_block(*models)
    if said is not None:
        evidence["said_instead"] = said
    return evidence


def describe_model(model: torch.nn.Module, *, trained: bool) -> Model:
    """The block `model`, without the frozen copy of an adapter that was given. `trained`: whether this run did it."""
    parameters = [p for name, p in model.named_parameters() if lora.REFERENCE not in name.split(".")]
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad) if trained else None,
        "peft": lora.describe(model) if lora.is_peft(model) else None,
    }


def device_name(device: torch.device) -> str:
    """What the evidence calls a device: `cpu`, or the accelerator's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
