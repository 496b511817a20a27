"""What a run leaves: the evidence, the output folder, and what is printed."""

import json
import math
from pathlib import Path

import numpy as np

from hf_unlearn.evaluation.account import Scored
from hf_unlearn.hub import upload
from hf_unlearn.progress import say
from hf_unlearn.report.blocks import Evidence, Seeds
from hf_unlearn.report.evidence import plain
from hf_unlearn.report.phases import plot_phases
from hf_unlearn.report.screen import render_screen
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import get_recipe
from hf_unlearn.run.recipe import Trained
from hf_unlearn.run.rows import Data
from hf_unlearn.run.stages import Unlearning
from hf_unlearn.trainers import handover
from hf_unlearn.trainers.base import UnlearningTrainer

RECKONED = "The cost of retraining is reckoned from the recipe: the retrained models were made elsewhere."


def make_evidence(
    arguments: Arguments,
    data: Data,
    original: Trained,
    trainer: UnlearningTrainer,
    unlearning: Unlearning,
    twins: list[Trained],
    scored: Scored,
) -> Evidence:
    """Everything the run can show (`evidence.json`)."""
    seconds, examples, reckoned = retraining_cost(arguments, data, original, twins)
    evidence = handover.trainer_evidence(
        trainer,
        before=scored.original,
        after=scored.unlearned,
        twins=scored.twins,
        data=data.describe(publish=arguments.request.publish_request),
        cost={
            "original_seconds": original.seconds,
            "original_examples": original.examples,
            "unlearn_seconds": unlearning.seconds,
            "retrain_seconds": seconds,
            "unlearn_examples": unlearning.examples,
            "retrain_examples": examples,
            "peak_memory_mb": unlearning.peak_memory_mb,
        },
        recipe=get_recipe(arguments).describe() if arguments.has_recipe else None,
        seeds=seeds(arguments),
        notes=[
            *data.report.notes,
            *([RECKONED] if reckoned else []),
            *handover.adapter_notes(trainer, arguments.lora.save_adapter),
        ],
    )
    if data.answers is not None:
        evidence[data.answers.key] = data.answers.block()  # type: ignore[literal-required]
    return evidence


def retraining_cost(
    arguments: Arguments, data: Data, original: Trained, twins: list[Trained]
) -> tuple[float | None, int | None, bool]:
    """Seconds and examples that one twin takes, and whether they are reckoned: from the recipe, where only references
    were given, with the original's seconds per row."""
    made = [twin for twin in twins if twin.seconds is not None]
    if made:
        return float(np.mean([t.seconds for t in made])), round(float(np.mean([t.examples for t in made]))), False
    if not twins or not arguments.has_recipe:
        return None, None, False
    recipe, rows = get_recipe(arguments), len(data.splits.retain)
    steps = math.ceil(recipe.num_train_epochs * (rows // recipe.batch_size))
    read, seconds = steps * recipe.batch_size, original.seconds
    if seconds is None or not original.examples:
        return None, read, True
    return seconds * read / original.examples, read, True


def seeds(arguments: Arguments) -> Seeds:
    """The evidence block `seeds`."""
    known, twins = arguments.has_recipe, range(1, arguments.recipe.retrain + 1)
    return {
        "run": arguments.trainer.seed,
        "original": arguments.recipe.original_seed if known else None,
        "twins": [arguments.twin_seed(k) for k in twins] if known else None,
    }


def save_model(arguments: Arguments, trainer: UnlearningTrainer, unlearning: Unlearning) -> None:
    """Write the model, its processor and the mask, before anything else can go wrong."""
    folder = Path(arguments.trainer.output_dir)
    for lens in trainer.active_lenses:
        lens.save(str(folder))
    handover.save_model(trainer, folder, unlearning.model)


def save(arguments: Arguments, data: Data, trainer: UnlearningTrainer, evidence: Evidence) -> None:
    """Write the evidence, its report and the card beside the model, and the page of answers."""
    trainer.evidence = evidence
    if not trainer.is_world_process_zero():
        return
    folder, options = Path(arguments.trainer.output_dir), arguments.lora
    adapter = evidence["model"]["peft"]
    if trainer.state.best_model_checkpoint:  # a path of this machine
        trainer.state.best_model_checkpoint = Path(trainer.state.best_model_checkpoint).name
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    _draw_phases(trainer, folder)
    save_answers(data, folder)
    base = arguments.model.model_name_or_path or arguments.recipe.original_model
    if adapter and adapter["given"]:
        base = handover.base_name(trainer.accelerator.unwrap_model(trainer.model))
    handover.write_documents(
        evidence,
        folder,
        base_model=base,
        library_name="peft" if adapter and options.save_adapter else trainer.task.library_name,
        num_labels=len(trainer.task.label_names or []) or None,
    )


def save_answers(data: Data, folder: Path) -> None:
    """With `--generate`: the page of answers, or what else was shown, which nothing pushes."""
    if data.answers is not None:
        data.answers.save(folder)


def print_answers(data: Data) -> None:
    """With `--generate`: a few of them."""
    if data.answers is not None:
        print("\n" + data.answers.text())


def _draw_phases(trainer: UnlearningTrainer, folder: Path) -> None:
    phases, history = trainer.schedule.phases, trainer.state.log_history
    if trainer.schedule.in_stages and any("eval_forget_accuracy" in entry for entry in history):
        (folder / "plots").mkdir(exist_ok=True)
        plot_phases(history, [(phase.name, phase.steps) for phase in phases], folder / "plots" / "phases.png")


def push(arguments: Arguments, trainer: UnlearningTrainer) -> None:
    """With `--push_to_hub`: push the finished folder, in one commit. Raises `UserError`; the folder is whole then."""
    args = arguments.trainer
    if not args.push_to_hub or not trainer.is_world_process_zero():
        return
    url = upload.push(
        args.output_dir,
        args.hub_model_id or Path(args.output_dir).resolve().name,
        private=args.hub_private_repo,
        token=args.hub_token,
        revision=args.hub_revision,
        push_adapter=arguments.lora.push_adapter,
    )
    say(f"pushed to {url}")


def print_data(data: Data) -> None:
    """The rows in their roles, and what there is to say about them."""
    say(f"task       {data.task.name} on {data.source.name}")
    sizes = data.splits.sizes()
    held = {"validation_tau": "validation for targets", "validation_stop": "validation for when to stop"}
    say("splits     " + ", ".join(f"{held.get(name, name)} {size:,}" for name, size in sizes.items()))
    for note in data.report.notes:
        say(f"note       {note}")


def print_nothing_written(arguments: Arguments, data: Data) -> None:
    """How the dry run of a command ends that has no steps to plan."""
    if arguments.run.json and arguments.trainer.process_index == 0:
        print(json.dumps({"splits": data.splits.sizes(), "notes": data.report.notes}, ensure_ascii=False))
    say(f"output     {arguments.trainer.output_dir} (nothing was written)")


def print_result(arguments: Arguments, data: Data, trainer: UnlearningTrainer, evidence: Evidence) -> None:
    """The answers, the table, and where things are; with `--json` the evidence instead."""
    if trainer.is_world_process_zero() and arguments.run.json:
        print(json.dumps(plain(evidence), ensure_ascii=False))
    elif trainer.is_world_process_zero():
        print_answers(data)
        print("\n" + render_screen(evidence))
        print(f"\nThe model, evidence.json, report.html and the model card are in {arguments.trainer.output_dir}")
