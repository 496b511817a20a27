"""What the benchmarks of steps share: trainers over the same rows, one of them a plain `transformers.Trainer`.

Rows are encoded already, so that neither data sets nor tokenizers are needed, and a step's time is the trainer's own.
"""

from typing import Any

METHODS = {
    "rows": ("nabla_tau", {"variant": "rows"}),
    "held": ("nabla_tau", {"variant": "held"}),
    "rows masked": ("nabla_tau", {"variant": "rows", "saliency": 0.5}),
    "salun": ("salun", {}),
    "salun unmasked": ("salun", {"saliency": 1.0}),
}
ROLES = {"forget": 32, "retain": 64, "validation_tau": 24, "validation_stop": 4, "test": 4}


class Encoded:
    """Encoded rows in place of a `datasets.Dataset`; [`task_for`] makes a task that takes them as they are."""

    def __init__(self, features: list[dict[str, Any]]):
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, places: list[int]) -> dict[str, list]:
        return {"features": [self.features[i] for i in places]}


def task_for(name: str, processor, labels: int | None = None):
    """A task whose rows are encoded already. `labels`: number of classes of a classifier."""
    from hf_unlearn.tasks import get_task

    names = None if labels is None else [str(i) for i in range(labels)]
    columns = {"question": "question", "answer": "answer"} if labels is None else {"label": "label"}
    task = get_task(name)(processor, columns, label_names=names)
    task.encode = lambda rows, positions: rows["features"]
    return task


def splits_of(source, task):
    """Consecutive rows of `source` as the roles."""
    from hf_unlearn.data.rows import Rows
    from hf_unlearn.data.splits import UnlearningSplits

    whole, start, found = Rows(source, task), 0, {}
    whole.__getitems__(range(sum(ROLES.values())))  # encoded once, for all
    for role, size in ROLES.items():
        found[role] = whole.select(range(start, start + size))
        start += size
    return UnlearningSplits(**found)


def make_trainer(
    method: str, model, source, task, folder: str, *, examples: int, forget: int, steps: int, callbacks=None, **more
):
    """A trainer whose steps take `examples` rows: all alike for `"plain"`, else `forget` of them to be forgotten.

    Args:
        method: `"plain"`, or a key of [`METHODS`].
        source: raw rows, or [`Encoded`] ones.
        folder: where the trainer may write.
        callbacks: of the trainer.
        more: further arguments of the trainer, for all methods alike.
    """
    from transformers import PrinterCallback, Trainer, TrainingArguments

    from hf_unlearn.methods import get_method

    shared = {
        "output_dir": folder, "max_steps": steps, "disable_tqdm": True, "logging_strategy": "no",
        "save_strategy": "no", "report_to": "none", "seed": 0,
    } | more  # fmt: skip
    splits = splits_of(source, task)
    if method == "plain":
        args = TrainingArguments(per_device_train_batch_size=examples, remove_unused_columns=False, **shared)
        trainer = Trainer(model, args, train_dataset=splits.retain, data_collator=task.collate, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        return trainer
    name, options = METHODS[method]
    kind = get_method(name)
    batches = {"per_device_train_batch_size": examples - forget, "per_device_forget_batch_size": forget}
    config = kind.config_class(**batches, **options, **shared)
    return kind(model, config, splits, task, callbacks=callbacks, quiet=True)
