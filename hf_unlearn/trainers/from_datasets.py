"""A trainer made as any `transformers.Trainer` is: from data sets and a tokenizer, and what must go."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from hf_unlearn.data.given import Forget, GivenRows, prepare_rows, source_of
from hf_unlearn.errors import UserError
from hf_unlearn.tasks.base import Task
from hf_unlearn.trainers.config import KnownRecipe, UnlearningConfig
from hf_unlearn.trainers.known_base import recipe_for
from hf_unlearn.trainers.part import TrainerPart

T = TypeVar("T", bound="FromDatasets")


class FromDatasets(TrainerPart):
    """Part of [`UnlearningTrainer`]: roles and task from what a `Trainer` is given."""

    @classmethod
    def from_datasets(
        cls: type[T],
        model: Any,
        args: Any,
        *,
        train_dataset: GivenRows,
        eval_dataset: "GivenRows | Mapping[str, GivenRows]",
        processing_class: Any,
        forget: Forget,
        task: str | type[Task] | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        max_length: int | None = None,
        base: Any = None,
        recipe: KnownRecipe | None = None,
        **kwargs: Any,
    ) -> T:
        """The trainer for rows as they are, not encoded, as [`unlearn`] takes them.

            trainer = NablaTauTrainer.from_datasets(
                model, NablaTauConfig("unlearned"), train_dataset=rows["train"], eval_dataset=rows["test"],
                processing_class=tokenizer, forget={"customer_id": ["C-1042", "C-0077"]},
            )
            trainer.train()
            trainer.save_model("unlearned")

        Args:
            model: the model that must forget, full or a `PeftModel`; changed in place.
            args: of the method.
            train_dataset: what it was trained on, the rows that must go included.
            eval_dataset: rows that it never saw, half of which become validation; or both by name, `validation` and
                `test`.
            processing_class: its tokenizer or image processor.
            forget, task, columns, max_length, base, recipe: as for [`unlearn`].
            kwargs: for the trainer.

        Raises `UserError` for whatever does not fit together.
        """
        config_class = getattr(cls, "config_class", UnlearningConfig)
        if not isinstance(args, config_class):
            raise UserError(f"args= is {type(args).__name__}: {cls.__name__} takes a {config_class.__name__}")
        if eval_dataset is None:
            raise UserError("eval_dataset= is None: give rows that the model was not trained on; half steer the run")
        named = eval_dataset if isinstance(eval_dataset, Mapping) else {"test": eval_dataset}
        if unknown := sorted(set(named) - {"validation", "test"}):
            raise UserError(f"eval_dataset= has {', '.join(unknown)}: name the rows validation and test")
        options: dict[str, Any] = {"task": task, "columns": columns, "max_length": max_length, "seed": args.seed}
        rows = prepare_rows(model, processing_class, source_of(train_dataset, **named), forget, **options)
        made: Any = cls  # methods take splits and task, in place of what a Trainer takes there
        recipe = recipe_for(rows, model, base, recipe)
        trainer = made(model, args, rows.splits, rows.task, recipe=recipe, **kwargs)
        trainer.notes += rows.report.notes
        return trainer
