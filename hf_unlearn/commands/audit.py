"""`hf-unlearn audit`: what a finished model remembers of given rows, without unlearning anything."""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.account import device_name
from hf_unlearn.evaluation.audit import LEAST_UNSEEN, Judged, judge_rows, settled_rate
from hf_unlearn.evaluation.language_metrics import exact_memorization, extraction_strength
from hf_unlearn.evaluation.scoring import score, score_tokens
from hf_unlearn.progress import quiet_libraries, quietly, say
from hf_unlearn.report.audit import Audit, render_audit
from hf_unlearn.report.evidence import environment, plain, write_json
from hf_unlearn.run import stages
from hf_unlearn.run.arguments import Arguments, RecipeArguments
from hf_unlearn.run.audited import AuditedRows, audited_rows
from hf_unlearn.run.checks import check, check_folder
from hf_unlearn.run.command_arguments import parse_with_own
from hf_unlearn.run.loading import load_model, placed
from hf_unlearn.run.stopping import AGAIN, told_how_to_go_on
from hf_unlearn.tasks.base import Task

SCHEMA_VERSION = 1
FILE = "audit.json"
BY_LOSS = "the loss of the model (lower: known better)"
BY_GAIN = "the loss of the base minus that of the model"
OTHER_KIND = (
    "Rows of another kind than the unseen ones stand out, or do not, for that alone: take unseen rows of the same "
    "kind, or take off what a base model finds easy (--base_model)."
)
SHARED = "The base model was not trained on the rows, by its maker's word; what it knows of them is not seen here."
FEW_UNSEEN = "{} unseen rows are too few ({} are needed): the model is compared with its base alone."
LOSS_ONLY = ("loss", "accuracy")


@dataclass
class AuditArguments:
    """What a finished model remembers of rows: of those that a request of `train` names (--forget_ids, --forget_where,
    …), or of all of --dataset_name or --train_file, beside unseen rows (test and validation) or a --base_model."""

    unseen_file: str | None = field(
        default=None, metadata={"help": "File of rows that the model never saw (default: test and validation rows)."}
    )
    false_positive_rate: float | None = field(
        default=None,
        metadata={"help": "Share of unseen rows that may stand out (default: as low as their number allows)."},
    )
    rows_file: str | None = field(
        default=None, metadata={"help": "Where to write which rows stand out, by their numbers (csv; private)."}
    )


def audit(argv: list[str] | None = None) -> None:
    """Score the audited rows and what they are compared with, and say what the model remembers."""
    own, arguments = parse_with_own(AuditArguments, "audit", argv)
    _settle(own, arguments)
    check(arguments)
    quiet_libraries()
    silent = quietly(arguments.run.quiet or arguments.run.json)
    with silent, stages.nothing_left_behind(arguments), told_how_to_go_on(arguments, AGAIN):
        rows = audited_rows(arguments, own.unseen_file)
        _check_rows(own, arguments, rows)
        say(f"task       {rows.task.name} on {rows.source.name}")
        say(f"rows       {len(rows.audited):,} audited, {sum(map(len, rows.unseen)):,} unseen")
        base = _load_base(arguments, rows.task)
        if arguments.run.dry_run:
            return say(f"output     {arguments.trainer.output_dir} (nothing was written)")
        found, judged = measure(own, arguments, rows, base)
        if arguments.trainer.process_index == 0:
            _save(own, arguments, rows, found, judged)


def measure(
    own: AuditArguments, arguments: Arguments, rows: AuditedRows, base_model: nn.Module | None
) -> tuple[Audit, Judged]:
    """Everything that is stored, and the figures of single rows, which are not."""
    say("scoring the model")
    scored = _score(arguments, rows, rows.model)
    base: dict[str, dict[str, np.ndarray]] = {}
    if base_model is not None:
        say("scoring the base model")
        base = _score(arguments, rows, base_model)
    by_losses = {name: found["loss"] for name, found in scored.items()}
    bases = {name: found["loss"] for name, found in base.items()}
    judged = judge_rows(
        by_losses["audited"],
        by_losses.get("unseen"),
        bases.get("audited"),
        bases.get("unseen"),
        own.false_positive_rate,
        arguments.trainer.seed,
    )
    columns = scored | {f"{name}_base": found for name, found in base.items()}
    figures: dict[str, dict[str, float | None]] = {}
    for column, arrays in columns.items():
        for name, values in arrays.items():
            figures.setdefault(name, {})[column] = float(np.nanmean(values)) if len(values) else None
    seed, device = arguments.trainer.seed, arguments.trainer.device
    found: Any = {
        "schema_version": SCHEMA_VERSION,
        "task": rows.task.name,
        "parameters": sum(p.numel() for p in rows.model.parameters()),
        "source": rows.source.name,
        "request": rows.request,
        "rows": {name: len(arrays["loss"]) for name, arrays in scored.items()},
        "score": BY_GAIN if base else BY_LOSS,
        "figures": figures,
        "auc": judged.auc,
        "p_value": judged.p_value,
        "standing_out": judged.standing_out,
        "gained": judged.gained,
        "verdict": judged.verdict,
        "seed": seed,
        "environment": environment(seed=seed, device=device_name(device)),
        "notes": [*rows.notes, SHARED if base else OTHER_KIND],
    }
    return found, judged


def _load_base(arguments: Arguments, task: Task) -> nn.Module | None:
    """What the losses are compared with. Raises `UserError` for one that lacks the model's head, as what a classifier
    was fine-tuned from does."""
    name = arguments.model.base_model
    if name is None:
        return None
    try:
        return load_model(arguments, task, name)
    except UserError as error:
        reason = str(error).partition("; name the model")[0]
        raise UserError(
            f"--base_model cannot be compared with the model: {reason}; name a base that loads with the model's head, "
            "or leave it out and give unseen rows"
        ) from None


def _score(arguments: Arguments, rows: AuditedRows, model: nn.Module) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of audited and unseen rows under a model, by figure."""
    model, batch = placed(model, arguments.trainer.device), arguments.trainer.per_device_eval_batch_size
    parts = {"audited": [rows.audited], "unseen": rows.unseen}
    found = {}
    for name, each in parts.items():
        arrays = [_arrays(model, rows.task, part, batch) for part in each]
        if arrays:
            found[name] = {key: np.concatenate([of[key] for of in arrays]) for key in arrays[0]}
    return found


def _arrays(model: nn.Module, task: Task, rows: Rows, batch_size: int) -> dict[str, np.ndarray]:
    if not task.generates:
        scores = score(model, task, rows, batch_size=batch_size)
        return {"loss": scores.loss, "accuracy": scores.correct}
    scores, tokens = score_tokens(model, task, rows, batch_size=batch_size)
    recall = {"extraction_strength": extraction_strength(tokens), "exact_memorization": exact_memorization(tokens)}
    return {"loss": scores.loss} | recall


def _settle(own: AuditArguments, arguments: Arguments) -> None:
    """What can be refused before anything is loaded. The recipe and the method do not matter here."""
    if arguments.model.model_name_or_path is None:
        raise UserError("an audit reads a finished model: name it with --model_name_or_path")
    for name in ("generate", "stress"):
        if getattr(arguments.run, name):
            raise UserError(f"--{name} is for train and evaluate; leave it out")
    if own.false_positive_rate is not None:
        settled_rate(10**12, own.false_positive_rate)
    if own.rows_file is not None:
        path = Path(own.rows_file)
        if path.exists():
            raise UserError(f"--rows_file {path} exists; name a new file")
        check_folder(path.parent, "the folder of --rows_file")
        if not path.parent.is_dir():
            raise UserError("--rows_file lies in a folder that does not exist; make it first")
    arguments.recipe = RecipeArguments(original_seed=arguments.recipe.original_seed)
    if arguments.trainer.output_dir == type(arguments.trainer).output_dir:
        arguments.trainer.output_dir = "audit"


def _check_rows(own: AuditArguments, arguments: Arguments, rows: AuditedRows) -> None:
    """Refuse before anything is scored what [`judge_rows`] would refuse after. Leaves too few unseen rows out where
    there is a base."""
    unseen, has_base = sum(map(len, rows.unseen)), arguments.model.base_model is not None
    if has_base and own.false_positive_rate is None and 0 < unseen < LEAST_UNSEEN:
        rows.notes.append(FEW_UNSEEN.format(unseen, LEAST_UNSEEN))
        rows.unseen = []
    audited, blank = np.zeros(len(rows.audited)), np.zeros(sum(map(len, rows.unseen)))
    base = np.zeros(len(audited)) if has_base else None
    judge_rows(audited, blank if len(blank) else None, base, rate=own.false_positive_rate)


def _save(own: AuditArguments, arguments: Arguments, rows: AuditedRows, found: Audit, judged: Judged) -> None:
    folder = Path(arguments.trainer.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, found)
    places = [rows.source.place("train", place) for place in rows.audited.indices]
    order = np.argsort(-judged.scores, kind="stable")
    if own.rows_file is not None:
        _write_rows(own.rows_file, [places[i] for i in order], judged.beaten[order], judged.stands_out[order])
    if arguments.run.json:
        return print(json.dumps(plain(found), ensure_ascii=False))
    print("\n" + render_audit(found, [places[i] for i in order if judged.stands_out[i]], own.rows_file))
    print(f"\n{FILE} is in {folder}")


def _write_rows(path: str, places: list[int], beaten: np.ndarray, stands_out: np.ndarray) -> None:
    """Numbers only, readable for this user only."""
    with _private(path) as file:
        writer = csv.writer(file)
        writer.writerow(["row", "share_of_unseen_below", "stands_out"])
        for row in zip(places, beaten, stands_out, strict=True):
            writer.writerow([row[0], "" if np.isnan(row[1]) else f"{row[1]:.4f}", int(row[2])])


@contextmanager
def _private(path: str) -> Iterator[Any]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="") as file:
        yield file
