"""What image and text classification share: labels, the checks of a model's classes, and predictions."""

from typing import Any, ClassVar

import torch

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.columns import LABEL_NAMES, find, missing, only_feature
from hf_unlearn.tasks.forward import logits_of, model_inputs, unwrap
from hf_unlearn.tasks.label_sets import is_label_set
from hf_unlearn.tasks.predictions import Predictions


class ClassificationTask(Task):
    """One label out of several for each row."""

    has_classes: ClassVar[bool] = True

    def check_model(self, model: torch.nn.Module) -> None:
        """Raises `UserError` if the model does not choose one of exactly the data's classes, in the data's order."""
        config: Any = unwrap(model).config
        problem = getattr(config, "problem_type", None)
        if problem in ("multi_label_classification", "regression") or config.num_labels < 2:
            what = problem or "regression"
            raise UserError(
                f"the model is made for {what}, and the task is {self.name}: it takes models of one label out of "
                "several (texts with several labels at once are multilabel_text_classification)"
            )
        check_classes(config, self.label_names)

    def predict(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Predictions:
        logits = logits_of(model(**model_inputs(model, batch)))  # (batch, classes)
        return Predictions(logits, batch["labels"], len(logits))

    def label_id(self, value: Any, position: int) -> int:
        """The id of a raw label: a number is an id already, a string is the name of a class."""
        names = self.label_names
        if isinstance(value, str):
            if names and value in names:
                return names.index(value)
            raise RowError(position, "its label is not one of the classes")
        try:
            number = int(value)
            whole = number == value
        except (TypeError, ValueError, OverflowError):
            raise RowError(position, "it has no usable label") from None
        if not whole or number < 0 or (names and number >= len(names)):
            raise RowError(position, "its label is not one of the classes")
        return number


def check_classes(config: Any, label_names: list[str] | None) -> None:
    """Raises `UserError` if a model's classes are not the data's, in their order, as far as both have names."""
    if label_names is None:
        return
    if config.num_labels != len(label_names):
        raise UserError(
            f"the model has {config.num_labels} labels and the data {len(label_names)}: "
            "choose the model that was trained on these classes, or another label column"
        )
    names = [str(config.id2label.get(i, i)).lower() for i in range(config.num_labels)]
    data_names = [str(name).lower() for name in label_names]
    if names != data_names and sorted(names) == sorted(data_names):
        raise UserError(
            "the model has the data's classes in another order: put its output layer and its id2label into "
            f"the data's, {', '.join(map(str, label_names))}, or renumber the data's labels to the model's order, "
            f"{', '.join(map(str, config.id2label.values()))}"
        )


def label_column(column_names: list[str], features: Any, chosen: dict[str, str]) -> str:
    """The label's column. Raises `UserError` naming the columns that exist, and for one that holds lists."""
    column = chosen.get("label") or find(LABEL_NAMES, column_names) or only_feature("ClassLabel", features)
    if column is None:
        raise missing("label", column_names)
    if is_label_set(dict(features or {}).get(column)):
        raise UserError(
            f"column '{column}' holds lists, and one label per row is needed: texts with lists of labels are "
            "multilabel_text_classification"
        )
    return column
