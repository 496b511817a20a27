"""Text classification: one text or a pair of texts, one label."""

from typing import Any, ClassVar

import torch

from hf_unlearn.errors import RowError
from hf_unlearn.tasks.classification import ClassificationTask, label_column
from hf_unlearn.tasks.columns import check_overrides, find, missing, only_feature
from hf_unlearn.tasks.forward import pad, unwrap
from hf_unlearn.tasks.tokenizing import (
    check_vocabulary,
    fit_max_length,
    load_tokenizer,
    pad_token_id,
    row_tensors,
    text_of,
)

PAIRS = (("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"))
TEXTS = ("text", "sentence", "content", "review", "document", "body", "utterance", "tweet", "comment", "article")


class TextClassification(ClassificationTask):
    """Any model of `AutoModelForSequenceClassification`. See [`Task`] for the arguments."""

    name: ClassVar[str] = "text_classification"
    roles: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    pipeline_tag: ClassVar[str] = "text-classification"
    example_input: ClassVar[str] = "Some text."
    peft_task_type: ClassVar[str | None] = "SEQ_CLS"
    partly_read: ClassVar[dict[str, str]] = {
        "end": "are longer than {max_length} tokens: what follows is neither forgotten nor measured",
    }
    # What `prepare_model` learns from the model.
    _pad_id: int | None = None
    _padding_side: str = "right"

    @classmethod
    def load_processor(cls, name_or_path: str, **hub_kwargs):
        return load_tokenizer(name_or_path, **hub_kwargs)

    @classmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """Roles: `text`, `label`, and `text_pair` where the data has a second text."""
        chosen = check_overrides(overrides, cls.roles, column_names, cls.name)
        return cls._text_columns(column_names, features, chosen, label_column(column_names, features, chosen))

    @classmethod
    def _text_columns(
        cls, column_names: list[str], features: Any, chosen: dict[str, str], label: str
    ) -> dict[str, str]:
        """The roles, where the label's column is known."""
        columns = {"label": label}
        pair = next(((a, b) for a, b in PAIRS if a in column_names and b in column_names), None)
        if pair and "text" not in chosen:
            return columns | {"text": pair[0], "text_pair": pair[1]} | chosen
        text = chosen.get("text") or find(TEXTS, column_names)
        text = text or only_feature("string", features, skip=[columns["label"]])
        if text is None:
            raise missing("text", column_names)
        return columns | {"text": text} | chosen

    def prepare_model(self, model: torch.nn.Module) -> None:
        super().prepare_model(model)
        check_vocabulary(self.processor)
        self.max_length = fit_max_length(self.processor, self.max_length, model)
        config = unwrap(model).config
        known = getattr(config, "pad_token_id", None)
        # GPT-2, Llama and their like classify from the last token that is not padding, and RoBERTa's positions skip
        # padding: both go by the id in the model's configuration, so that one is used, and there must be one.
        if known is None or not 0 <= known < config.vocab_size:
            config.pad_token_id = pad_token_id(self.processor)
        self._pad_id = config.pad_token_id
        # XLNet classifies from the last position. For all others absolute positions must start at the first token.
        self._padding_side = "left" if config.model_type == "xlnet" else "right"

    def row_label(self, value: Any, position: int) -> Any:
        """What a row's raw label is to the model. Raises `RowError`."""
        return self.label_id(value, position)

    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        def texts(role: str) -> list[str] | None:
            if role not in self.columns:
                return None
            return [text_of(v, at, "text") for v, at in zip(rows[self.columns[role]], positions, strict=True)]

        labels = [self.row_label(v, at) for v, at in zip(rows[self.columns["label"]], positions, strict=True)]
        limit = {"truncation": True, "max_length": self.max_length} if self.max_length else {}
        encoded = self.processor(texts("text"), texts("text_pair"), **limit)
        tensors = row_tensors(encoded)
        features = []
        for i, (label, position) in enumerate(zip(labels, positions, strict=True)):
            if not encoded["input_ids"][i]:
                raise RowError(position, "its text has no tokens")
            if encoded.encodings and encoded.encodings[i].overflowing:
                self.left_out["end"].add(position)
            features.append({key: values[i] for key, values in tensors.items()} | {"labels": label})
        return features

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` (and `token_type_ids`) `(batch, seq)`, `labels` `(batch,)`."""
        pad_id = pad_token_id(self.processor) if self._pad_id is None else self._pad_id
        fill = {"input_ids": pad_id, "token_type_ids": self.processor.pad_token_type_id}
        return pad(features, fill, self._padding_side)
