"""What a trainer hands over where no command does it: its model, processor, evidence, report and card, in a folder."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from hf_unlearn.data.scored_rows import scored_rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.account import SAID, SCORED, Scored, describe_model, make_evidence
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.scoring import score_splits
from hf_unlearn.hub.staging import ADAPTER, REMOVED_CLASSES, WEIGHTS
from hf_unlearn.models import lora
from hf_unlearn.report.blocks import Data, Evidence, Seeds
from hf_unlearn.report.card import base_license, render_card
from hf_unlearn.report.drawn import save_drawn
from hf_unlearn.report.evidence import write_json
from hf_unlearn.report.html import render_html
from hf_unlearn.report.picture import save_picture
from hf_unlearn.report.training import training_block
from hf_unlearn.saliency.shards import gathered, is_spread
from hf_unlearn.trainers.part import TrainerPart

ADDED = "The adapter removes nothing from its base: whoever switches it off has the forgotten rows back."
MERGED = "Unlearned through an adapter, merged into the weights: an adapter alone can be switched off by anyone."


def score_model(trainer: TrainerPart, model: torch.nn.Module | None = None) -> ModelScores:
    """One pass over the reported splits, under the trainer's model or another; every process must call it."""
    args = trainer.args
    return score_splits(
        trainer.model_wrapped if model is None else model.to(args.device),
        trainer.task,
        scored_rows(trainer.splits, args.seed, every=args.score_all),
        SCORED,
        said=SAID,
        batch_size=args.per_device_eval_batch_size,
        device=args.device,
        num_workers=args.dataloader_num_workers,
    )


def trainer_evidence(
    trainer: TrainerPart,
    *,
    before: ModelScores | None = None,
    after: ModelScores | None = None,
    twins: Sequence[ModelScores] = (),
    data: Data | None = None,
    cost: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    seeds: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Evidence:
    """The evidence of a finished training. Without `after` it scores the trainer's model: every process must call it.

    Args:
        before, after, twins: scores of the original, the unlearned model, and models that never saw the forget rows.
        data, cost, recipe, seeds: blocks of [`Evidence`](../report/blocks.py), as far as they are known; what the
            trainer knows itself need not be given.
    """
    known = {"unlearn_examples": trainer.examples, "steps": trainer.state.global_step}
    return make_evidence(
        Scored(before, score_model(trainer) if after is None else after, list(twins)),
        method={"name": trainer.method, "paper": trainer.paper, "hyperparameters": trainer.args.hyperparameters()},
        task=trainer.task.name,
        units=trainer.task.units(),
        model=describe_model(trainer.model, trained=True),
        data=data or cast(Data, {"splits": trainer.splits.sizes(), "forget_digest": trainer.forget_digest}),
        cost=known | dict(cost or {}),
        seeds=cast(Seeds, {"run": trainer.args.seed, "original": None, "twins": None} | dict(seeds or {})),
        device=trainer.args.device,
        recipe=recipe,
        training=training_block(trainer.state.log_history),
        notes=[*notes, *trainer.notes],
    )


def check_room(folder: Path, argument: str, model: torch.nn.Module) -> None:
    """Try whether a model like this could be written to `folder`, which the argument of this name is; leaves nothing.

    Raises `UserError` if it cannot be written to, or has no room.
    """
    if int(os.environ.get("LOCAL_RANK", 0)):
        return  # one process a machine tries
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    folder = folder.absolute()
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"`{argument}` {folder} cannot be written to: {error.strerror}; name another folder") from None
    finally:
        for each in made:
            with suppress(OSError):  # another process is in it
                each.rmdir()
    if free < needed:
        rooms = f"{free / 2**20:,.0f} MB free, and the model takes {needed / 2**20:,.0f} MB"
        raise UserError(f"`{argument}` {folder} has {rooms}; make room, or name another folder")


def final_model(trainer: TrainerPart, *, save_adapter: bool = False) -> PreTrainedModel:
    """What is saved, and therefore measured: an adapter is merged into a copy of the weights, unless it is kept."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return lora.merge(model) if lora.is_peft(model) and not save_adapter else model


def save_result(
    trainer: TrainerPart,
    evidence: Mapping[str, Any],
    folder: str | os.PathLike,
    *,
    save_adapter: bool = False,
) -> None:
    """Write a folder that loads with `from_pretrained` and can be pushed. All processes call it, the first writes.

    An adapter is merged into the weights, unless `save_adapter`. A model that is there already is replaced.
    """
    if is_spread(trainer.model) or trainer.is_world_process_zero():
        save_model(trainer, folder, final_model(trainer, save_adapter=save_adapter))
    if not trainer.is_world_process_zero():
        return
    keeps_adapter = lora.is_peft(trainer.model) and save_adapter
    labels = trainer.task.label_names
    write_documents(
        dict(evidence) | {"notes": [*evidence["notes"], *adapter_notes(trainer, save_adapter)]},
        folder,
        base_model=base_name(trainer.accelerator.unwrap_model(trainer.model)),
        library_name="peft" if keeps_adapter else trainer.task.library_name,
        num_labels=len(labels) if labels else None,
    )


def adapter_notes(trainer: TrainerPart, save_adapter: bool) -> list[str]:
    """What a reader must know of a model that was unlearned through an adapter."""
    if not lora.is_peft(trainer.model):
        return []
    return [ADDED if save_adapter else MERGED]


def save_model(trainer: TrainerPart, folder: str | os.PathLike, model: PreTrainedModel) -> None:
    """The trainer's model as [`final_model`] gives it, and its processor, in place of a model that is there.

    The first process writes. Where weights are spread over processes, all must call this: it gathers them.
    """
    weights = {"state_dict": gathered(model)} if is_spread(model) else {}
    if not trainer.is_world_process_zero():
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if WEIGHTS.fullmatch(path.name) or path.name in ADAPTER:
            path.unlink()
    with as_one_process(model.config):
        trainer.task.save_model(model, folder, **lora.save_kwargs(model), **weights)
    removed = removed_classes(trainer)
    if removed:
        write_json(folder / REMOVED_CLASSES, {"ids": removed})
    else:
        (folder / REMOVED_CLASSES).unlink(missing_ok=True)


@contextmanager
def as_one_process(config: Any) -> Iterator[None]:
    """Keeps `save_pretrained` from gathering weights again, and how they were spread out of `config.json`."""
    spread = getattr(config, "distributed_config", None)
    if spread is None:
        yield
        return
    config.distributed_config = None
    try:
        yield
    finally:
        config.distributed_config = spread


def removed_classes(trainer: TrainerPart) -> list[int]:
    """Ids of the classes of which no row is kept."""
    task, column = trainer.task, trainer.task.columns.get("label")
    if not task.has_classes or column is None:
        return []
    ids = {}
    for role in ("forget", "retain"):
        rows = getattr(trainer.splits, role)
        labels = rows.source.select(rows.indices)[column]
        ids[role] = {task.label_id(label, place) for place, label in zip(rows.indices, labels, strict=True)}
    return sorted(ids["forget"] - ids["retain"])


def write_documents(
    evidence: Mapping[str, Any],
    folder: str | os.PathLike,
    *,
    base_model: str | None = None,
    library_name: str = "transformers",
    num_labels: int | None = None,
) -> None:
    """`evidence.json`, and its renderings: `report.html`, a picture, and the model card with the base's licence.

    Args:
        base_model: Hub id or folder; the card names it only if it is an id.
        library_name, num_labels: as for [`render_card`].
    """
    folder = Path(folder)
    write_json(folder / "evidence.json", evidence)
    (folder / "report.html").write_text(render_html(evidence), encoding="utf-8")
    card = render_card(
        evidence,
        base_model=base_model,
        license=base_license(base_model),
        library_name=library_name,
        picture=save_picture(evidence, folder),
        drawn=save_drawn(evidence, folder),
        num_labels=num_labels,
        grey=_reads_grey(folder / "config.json"),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _reads_grey(config: Path) -> bool:
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("num_channels") == 1


def base_name(model: torch.nn.Module) -> str | None:
    """What the model was loaded from; of an adapter, its base. A Hub id or a folder, `None` for one made in memory."""
    if lora.is_peft(model):
        return lora.base_name(model)
    return getattr(model.config, "_name_or_path", None) or None
