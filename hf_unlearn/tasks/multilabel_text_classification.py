"""Multi-label text classification: one text or a pair of texts, any number of labels, none included."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.tasks.classification import check_classes
from hf_unlearn.tasks.columns import LABEL_NAMES, check_overrides, find
from hf_unlearn.tasks.forward import logits_of, model_inputs, unwrap
from hf_unlearn.tasks.label_sets import LabelSetPredictions, is_label_set, label_vector
from hf_unlearn.tasks.text_classification import TextClassification

MULTI_LABEL = "multi_label_classification"  # transformers' `problem_type`


class MultilabelTextClassification(TextClassification):
    """Any model of `AutoModelForSequenceClassification` with a logit for each label, trained by binary cross-entropy.

    The loss of a row is the mean over its K labels, and a label is said where its logit is above 0. See [`Task`] for
    the arguments.
    """

    name: ClassVar[str] = "multilabel_text_classification"
    accuracy_name: ClassVar[str] = "subset accuracy"
    has_classes: ClassVar[bool] = False
    has_label_sets: ClassVar[bool] = True
    problem_type: ClassVar[str | None] = MULTI_LABEL
    pipeline_options: ClassVar[str] = ', top_k=None, function_to_apply="sigmoid"'
    arrays: ClassVar[tuple[str, ...]] = ("true_labels", "said_labels")

    @classmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """Roles as those of text classification; the label's column holds lists."""
        chosen = check_overrides(overrides, cls.roles, column_names, cls.name)
        known = dict(features or {})
        lists = [name for name in column_names if name not in known or is_label_set(known[name])]
        label = chosen.get("label") or find(LABEL_NAMES, lists) or find(LABEL_NAMES, column_names)
        if label is None:
            raise UserError(
                "no column found for 'label': name a column of lists, or columns of zeros and ones with "
                f"`label_columns`; the data has {', '.join(column_names)}"
            )
        if label not in lists:
            raise UserError(
                f"column '{label}' holds no lists of labels: give such (csv cannot, jsonl can), or name columns "
                "of zeros and ones with `label_columns`"
            )
        return cls._text_columns(column_names, features, chosen, label)

    def check_model(self, model: torch.nn.Module) -> None:
        """Raises `UserError` if the model is made for another problem, or for other labels than the data's."""
        config: Any = unwrap(model).config
        problem = getattr(config, "problem_type", None)
        if problem not in (None, MULTI_LABEL):
            raise UserError(f"the model is made for {problem}, and the task is {self.name}: choose another of them")
        check_classes(config, self.label_names)

    def prepare_model(self, model: torch.nn.Module) -> None:
        super().prepare_model(model)
        config: Any = unwrap(model).config
        config.problem_type = MULTI_LABEL  # pipelines go by it, and so does the loss of transformers

    def row_label(self, value: Any, position: int) -> torch.Tensor:
        """A row's labels, by ids or names, as `(K,)` zeros and ones. Raises `RowError`."""
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise RowError(position, "it has no list of labels; an empty list says that it has none")
        if self.label_names is None:
            raise UserError(f"`label_names` are missing: {self.name} counts its labels by them")
        return label_vector([self.label_id(label, position) for label in value], len(self.label_names))

    def predict(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> LabelSetPredictions:
        return LabelSetPredictions.of(logits_of(model(**model_inputs(model, batch))), batch["labels"])
