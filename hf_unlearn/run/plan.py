"""What a dry run shows: splits, model, steps, and what they will take in time and memory, after one step was tried."""

import json
from pathlib import Path

from hf_unlearn.progress import duration
from hf_unlearn.report.verdict import dear
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import get_recipe
from hf_unlearn.run.peak_memory import peak_memory_mb
from hf_unlearn.run.recipe import Trained
from hf_unlearn.run.rows import Data
from hf_unlearn.run.stages import make_trainer, scored_splits
from hf_unlearn.run.tried_step import rows_to_read, seconds_per_row
from hf_unlearn.trainers.base import UnlearningTrainer

Plan = list[tuple[str, str]]  # what, and what is to be said of it
ADAM_STATES = 2  # float32 numbers that AdamW keeps per trained weight


def print_plan(arguments: Arguments, data: Data) -> None:
    """The plan, as lines or with `--json` as JSON. Nothing is trained or written."""
    kind = type(data.model).__name__
    trainer = make_trainer(arguments, data, Trained(data.loaded))
    found = _model_and_steps(trainer, kind) + _costs(arguments, data, trainer)
    if not trainer.is_world_process_zero():
        return
    if arguments.run.json:
        lines = [{"what": what, "text": text} for what, text in found]
        print(json.dumps({"splits": data.splits.sizes(), "notes": data.report.notes, "plan": lines}))
        return
    for what, text in found:
        print(f"{what:<11}{text}")


def _model_and_steps(trainer: UnlearningTrainer, kind: str) -> Plan:
    parameters = list(trainer.model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    found = [("model", f"{kind}, {sum(p.numel() for p in parameters):,} parameters, {trainable:,} of them trained")]
    for phase in trainer.schedule.phases:
        sizes = trainer.stream_sizes()
        rows = " + ".join(f"{sizes[s].batch} {s} rows" for s in phase.streams)
        rate = phase.learning_rate or trainer.args.learning_rate
        text = f"{phase.name}: {phase.steps:,} steps of {rows or 'no rows'}, learning rate {rate:.2g}"
        found.append(("phase", text))
    lines = [*trainer.plan(), *(line for lens in trainer.active_lenses for line in lens.plan())]
    return found + [("method", line) for line in lines] + [("note", note) for note in trainer.notes]


def _costs(arguments: Arguments, data: Data, trainer: UnlearningTrainer) -> Plan:
    rows, most = rows_to_read(trainer)
    found = [("retrain", _yardstick(arguments)), *_tried(arguments, data, trainer, rows, most)]
    passes = rows / len(data.splits.retain)
    if arguments.has_recipe:
        share = passes / get_recipe(arguments).num_train_epochs
        line = dear(share) or f"reads about {100 * share:.0f} % of the examples of one retraining"
    else:
        line = f"reads as many rows as {passes:.1f} epochs of retraining, which forgets exactly"
    found.append(("cost", line))
    output = Path(arguments.trainer.output_dir)
    goes_on = arguments.trainer.resume_from_checkpoint is not None
    full = "not empty: train refuses it; " if not goes_on and output.is_dir() and any(output.iterdir()) else ""
    return [*found, ("output", f"{output} ({full}nothing was written)")]


def _yardstick(arguments: Arguments) -> str:
    """The twins that there will be, or what it takes to have some."""
    twins, given = _references(arguments)
    if twins or given:
        return ", ".join(f"{count} {what}" for count, what in ((twins, "twins"), (given, "given models")) if count)
    recipe = "" if arguments.has_recipe else "say how the model was made (--original_model, …) and "
    return f"no twins, so the evidence has no yardstick: {recipe}add --retrain 2, or name retrained models"


def _references(arguments: Arguments) -> tuple[int, int]:
    """How many twins are made, and how many models that never saw the rows are given."""
    return arguments.recipe.retrain, len(arguments.recipe.reference_model or [])


def _tried(arguments: Arguments, data: Data, trainer: UnlearningTrainer, rows: int, most: int) -> Plan:
    """Time and memory by one step, forward and backward without an update, over as many rows as a micro-batch has.
    `rows` are what the unlearning reads, at `most` where it is prolonged."""
    seconds, forward = seconds_per_row(trainer)
    parts = {"unlearning": rows * seconds}
    if arguments.has_recipe:
        epochs, recipe = get_recipe(arguments).num_train_epochs, arguments.recipe
        if arguments.model.model_name_or_path is None:
            parts["the original"] = epochs * (len(data.splits.forget) + len(data.splits.retain)) * seconds
        if recipe.retrain:
            parts[f"{recipe.retrain} twins"] = recipe.retrain * epochs * len(data.splits.retain) * seconds
    models, scored = 2 + sum(_references(arguments)), rows_scored(arguments, data)
    parts[f"scoring {models} models"] = models * sum(rows for rows, _ in scored.values()) * forward
    named = ", ".join(f"{name} {duration(spent)}" for name, spent in parts.items())
    if most > rows:  # the unlearning may be prolonged
        named += f"; at most {duration(sum(parts.values()) + (most - rows) * seconds)}"
    world = trainer.args.world_size
    where = f"{world} {trainer.args.device.type} {'process' if world == 1 else 'processes'}"
    place = f"{where}, by one step that was tried"
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return [
        ("time", f"about {duration(sum(parts.values()))}: {named} ({place})"),
        ("scoring", f"{models} models, each on {_listed(scored)}"),
        ("memory", _memory(peak_memory_mb(), trained)),
    ]


def _memory(peak: float | None, trained: int) -> str:
    """`peak` in MB, of the step that was tried; `trained` weights."""
    if peak is None:
        return "not known: this system does not tell what a process took"
    megabytes = peak + ADAM_STATES * 4 * trained / 2**20
    return f"about {megabytes:,.0f} MB a process: the step that was tried, and the optimizer's state"


def rows_scored(arguments: Arguments, data: Data) -> dict[str, tuple[int, int]]:
    """Of each role how many rows are scored of every model, of how many there are."""
    splits = scored_splits(arguments, data)
    roles = {"forget": "forget", "retain": "retain", "test": "test"}
    roles |= {} if splits.unseen_forgotten is None else {"unseen": "unseen_forgotten"}
    return {name: (len(getattr(splits, r)), len(getattr(data.splits, r))) for name, r in roles.items()}


def _listed(scored: dict[str, tuple[int, int]]) -> str:
    counts = [f"{n:,} {name} rows" if n == of else f"{n:,} of {of:,} {name} rows" for name, (n, of) in scored.items()]
    return ", ".join(counts)
