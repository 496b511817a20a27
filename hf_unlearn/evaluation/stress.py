"""Does what was forgotten come back? Each model is disturbed in the same way, and looked at before and after.

A model that only hides what it knew gives it back sooner than a retrained twin learns it, so every figure means
something only beside that of the twins.
"""

import copy
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.evaluation.embeddings import embeddings
from hf_unlearn.evaluation.metrics import loss_auc
from hf_unlearn.evaluation.relearn import fine_tuned_copy, trainable_copy
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.models.noise import input_module
from hf_unlearn.progress import say
from hf_unlearn.report.blocks import Stress
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap

Models = Mapping[str, nn.Module | None]
Figures = dict[str, float | None]
FEW_SHARE, FEW_MOST = 0.1, 32  # a few forget rows: this share of them, but no more than so many
RELATED = 4  # times as many related retain rows
COMPARED = 512  # forget rows that retain rows are compared with, at most
PARAPHRASES = "paraphrased_question"
NO_FOUR_BIT = "4-bit quantization: it needs a CUDA GPU and the package bitsandbytes."
FEW_ROWS = "Relearning from a few forget rows: with fewer than two there are none to measure on."


def stress(
    models: Models,
    task: Task,
    splits: UnlearningSplits,
    *,
    learning_rate: float,
    steps: int = 20,
    seed: int = 0,
    batch_size: int = 64,
) -> Stress:
    """The evidence block `stress`. JSON types only. The models, their modes and global generators are not changed.

    Args:
        models: `original` (may be `None` or missing), `unlearned`, and any others as twins.
        learning_rate: of AdamW when relearning; take that of the recipe.
        steps: of relearning.
        seed: draws the few forget rows and their order.

    Returns:
        - `relearning`: by what is learned from, `few_forget_rows` (a tenth of them, at most 32; measured on the
          others) and `related_retain_rows` (the nearest to forget rows in the original's embeddings; measured on all).
        - `quantization`: `int8`, symmetric per output channel, and `int4` (bitsandbytes' nf4) where that can be run.
        - `paraphrases`: the forget rows' questions in other words, where the data has them.
        - `not_checked`: sentences.

        Each holds `original`, `unlearned` and `twins` with their figures `before` and `after` (for twins the means)
        and `beyond_twins`, see [`_check`].
    """
    present = {name: model for name, model in models.items() if model is not None}
    run = _Checks(present, task, splits, batch_size)
    tuning = {"steps": steps, "learning_rate": learning_rate, "seed": seed}
    found: dict[str, Any] = {"relearning": {}, "quantization": {}, "paraphrases": {}, "not_checked": []}
    if len(splits.forget) >= 2:
        few, others = _few(splits.forget, seed)
        found["relearning"]["few_forget_rows"] = run.relearning(few, others, tuning)
    else:
        found["not_checked"].append(FEW_ROWS)
    related = related_rows(next(iter(present.values())), task, splits, batch_size)
    found["relearning"]["related_retain_rows"] = run.relearning(related, splits.forget, tuning)
    found["quantization"]["int8"] = run.changed("8-bit weights", lambda model: quantized_int8(model))
    if can_quantize_int4():
        found["quantization"]["int4"] = run.changed("4-bit weights", lambda model: quantized_int4(model, task))
    else:
        found["not_checked"].append(NO_FOUR_BIT)
    paraphrased = paraphrased_rows(task, splits.forget)
    if paraphrased is not None:
        found["paraphrases"]["questions"] = run.asked_otherwise(paraphrased)
    return cast(Stress, found)


class _Checks:
    """One disturbance after the other, each for all models."""

    def __init__(self, models: dict[str, nn.Module], task: Task, splits: UnlearningSplits, batch_size: int):
        self.models, self.task, self.splits, self.batch_size = models, task, splits, batch_size

    def relearning(self, rows: Rows, measured: Rows, tuning: dict[str, Any]) -> dict[str, Any]:
        say(f"stress: {tuning['steps']} steps on {len(rows)} rows")
        found = self.changed("", lambda model: fine_tuned_copy(model, self.task, rows, **tuning), measured)
        return {"steps": tuning["steps"], "rows": len(rows), "measured_rows": len(measured)} | found

    def changed(self, title: str, change: Callable[[nn.Module], nn.Module], measured: Rows | None = None) -> dict:
        """Every model before and after `change`, which returns a copy."""
        if title:
            say(f"stress: {title}")
        measured = self.splits.forget if measured is None else measured
        pairs = {
            name: (self._figures(model, measured), self._figures(change(model), measured))
            for name, model in self.models.items()
        }
        return side_by_side(pairs)

    def asked_otherwise(self, paraphrased: Rows) -> dict[str, Any]:
        say("stress: paraphrased questions")
        pairs = {
            name: (self._figures(model, self.splits.forget), self._figures(model, paraphrased))
            for name, model in self.models.items()
        }
        return side_by_side(pairs)

    def _figures(self, model: nn.Module, forget: Rows) -> Figures:
        own, unseen = (
            score(model, self.task, rows, batch_size=self.batch_size) for rows in (forget, self.splits.nonmembers)
        )
        return {
            "forget_accuracy": own.accuracy,
            "forget_loss": float(own.loss.mean()),
            "membership_auc": loss_auc(own.loss, unseen.loss).value,
            "unseen_accuracy": unseen.accuracy if len(unseen) else None,
        }


def side_by_side(pairs: Mapping[str, tuple[Figures, Figures]]) -> dict[str, Any]:
    """Figures before and after by `original`, `unlearned` and `twins`, and how far the unlearned model's change goes
    beyond the twins' mean change: `beyond_twins`, with the twins' own `lowest` and `highest` change."""
    twins = [pair for name, pair in pairs.items() if name not in ("original", "unlearned")]
    found: dict[str, Any] = {
        name: None if name not in pairs else {"before": pairs[name][0], "after": pairs[name][1]}
        for name in ("original", "unlearned")
    }
    found["twins"] = found["beyond_twins"] = None
    if not twins:
        return found
    found["twins"] = {when: _means([pair[i] for pair in twins]) for i, when in enumerate(("before", "after"))}
    found["beyond_twins"] = {}
    for key in twins[0][0]:
        changes = [change for pair in twins if (change := _change(pair, key)) is not None]
        own = _change(pairs["unlearned"], key)
        if own is not None and len(changes) == len(twins):
            ends = {"lowest": min(changes), "highest": max(changes)}
            found["beyond_twins"][key] = {"change": own, "beyond": own - float(np.mean(changes)), "twins": ends}
    return found


def _change(pair: tuple[Figures, Figures], key: str) -> float | None:
    before, after = (figures[key] for figures in pair)
    return None if before is None or after is None else after - before


def _means(blocks: list[Figures]) -> Figures:
    columns = {key: [v for block in blocks if (v := block[key]) is not None] for key in blocks[0]}
    return {key: float(np.mean(known)) if len(known) == len(blocks) else None for key, known in columns.items()}


def _few(forget: Rows, seed: int) -> tuple[Rows, Rows]:
    """A few of the forget rows, and the others."""
    order = np.random.default_rng(seed).permutation(len(forget))
    count = max(1, min(FEW_MOST, round(FEW_SHARE * len(forget))))
    return forget.select(np.sort(order[:count])), forget.select(np.sort(order[count:]))


def related_rows(model: nn.Module, task: Task, splits: UnlearningSplits, batch_size: int = 64) -> Rows:
    """The retain rows that lie nearest to a forget row by cosine in the model's embeddings."""
    count = RELATED * max(1, min(FEW_MOST, round(FEW_SHARE * len(splits.forget))))
    step = -(-len(splits.forget) // COMPARED)
    forget = embeddings(model, task, splits.forget.select(range(0, len(splits.forget), step)), batch_size)
    retain = embeddings(model, task, splits.retain, batch_size)
    forget, retain = (e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in (forget, retain))
    nearest = np.argsort(-(retain @ forget.T).max(axis=1), kind="stable")[:count]
    return splits.retain.select(np.sort(nearest))


@torch.no_grad()
def quantized_int8(model: nn.Module) -> nn.Module:
    """A copy whose linear layers' weights are rounded to 255 levels per output channel, symmetric around 0, and back.

    Embeddings, and an output head that shares their weights, are left as they are. An adapter is merged first.
    """
    from transformers.pytorch_utils import Conv1D

    copied = trainable_copy(model)
    shared = getattr(input_module(copied), "weight", None)
    for module in copied.modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module.weight is not shared:
            inputs = 0 if isinstance(module, Conv1D) else 1  # Conv1D holds (in, out)
            weight = module.weight.float()
            scale = weight.abs().amax(dim=inputs, keepdim=True) / 127
            rounded = torch.where(scale > 0, (weight / scale).round() * scale, weight)
            module.weight.copy_(rounded.to(module.weight.dtype))
    return copied


def can_quantize_int4() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes") is not None


def quantized_int4(model: nn.Module, task: Task) -> nn.Module:
    """A copy with bitsandbytes' 4-bit weights (nf4), on the model's GPU. An adapter is merged first."""
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    device = next(model.parameters()).device
    with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as folder:
        unwrap(trainable_copy(model)).save_pretrained(folder)
        return task.auto_model().from_pretrained(folder, quantization_config=config, device_map={"": device})


def paraphrased_rows(task: Task, forget: Rows) -> Rows | None:
    """The forget rows with their questions in other words; `None` where the data has no `paraphrased_question`."""
    if "question" not in task.columns or PARAPHRASES not in forget.source.column_names:
        return None
    other = copy.copy(task)
    other.columns = task.columns | {"question": PARAPHRASES}
    return Rows(forget.source, other, forget.indices)
