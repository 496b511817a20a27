"""A task holds everything in which modalities differ, and only that. Methods never ask which task they run on."""

import importlib
import importlib.util
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch

from hf_unlearn.errors import UserError, in_one_line
from hf_unlearn.tasks.forward import eval_mode, kept_randomness, model_inputs, unwrap
from hf_unlearn.tasks.predictions import Predictions
from hf_unlearn.tasks.row_parts import by_row


class Task(ABC):
    """One modality: how raw rows become tensors, and how a model's output becomes [`Predictions`].

    Args:
        processor: tokenizer or image processor; saved next to the model.
        columns (`dict[str, str]`): the role each column plays, as [`Task.detect_columns`] returns it.
        label_names (`list[str]`, *optional*): class names in the order of the label ids (classifiers only).
        max_length (`int`, *optional*): longest sequence in tokens (text only).

    Attributes:
        name (`str`): what `--task` takes and the evidence says.
        roles (`tuple[str, ...]`): what a column can be; `--<role>_column` names one.
        auto_class (`str`): the class of `transformers` that loads this task's models.
        pipeline_tag (`str`): of the model card, and of the `pipeline` in its usage snippet.
        example_input (`str`): of that snippet.
        processor_argument (`str`): by which a `pipeline` takes the processor.
        accuracy_name (`str`): what an accuracy counts, in the card.
        loss_unit (`str`): of a row's loss; where it is not nats, tables say it, and `accuracy_name`.
        peft_task_type (`str`, *optional*): of adapters; peft has none for some tasks.
        has_classes (`bool`): whether rows have a label out of several.
        has_label_sets (`bool`): whether rows have any number of labels instead, each true or not.
        problem_type (`str`, *optional*): of the configuration of its models, where it tells them from those of another
            task.
        pipeline_options (`str`): further arguments of that `pipeline`, as Python writes them.
        arrays (`tuple[str, ...]`): properties of its predictions that a scoring pass keeps beside those of every task.
        has_prompts (`bool`): whether the class takes a `prompt_template`.
        generates (`bool`): whether models answer in words of their own, which figures of their own are about.
        wrong_labels (`str`): what serves as a wrong label: `soft`, all others at once, or `uniform`, one drawn alike.
        needs (`dict[str, str]`): modules beside those of the core, and what `pip install` takes for each.
        rows_of (`str`, *optional*): another task, whose built-in data sets this one reads too.
        library_name (`str`): of the model card: what loads this task's models.
        says_labels (`bool`): whether the logits of its predictions are those of labels. Where they are not, a row has
            one loss and its log-odds, and nothing is said of other labels.
    """

    name: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    auto_class: ClassVar[str]
    pipeline_tag: ClassVar[str]
    example_input: ClassVar[str] = "An example."
    processor_argument: ClassVar[str] = "tokenizer"
    accuracy_name: ClassVar[str] = "accuracy"
    loss_unit: ClassVar[str] = "nats"
    peft_task_type: ClassVar[str | None] = None
    has_classes: ClassVar[bool] = True
    has_label_sets: ClassVar[bool] = False
    problem_type: ClassVar[str | None] = None
    pipeline_options: ClassVar[str] = ""
    arrays: ClassVar[tuple[str, ...]] = ()
    has_prompts: ClassVar[bool] = False
    generates: ClassVar[bool] = False
    # What of a row the model may not get to see: kind → the end of a sentence about such rows, for notes.
    partly_read: ClassVar[dict[str, str]] = {}
    wrong_labels: ClassVar[str] = "soft"
    needs: ClassVar[dict[str, str]] = {}
    rows_of: ClassVar[str | None] = None
    library_name: ClassVar[str] = "transformers"
    says_labels: ClassVar[bool] = True

    def __init__(
        self,
        processor,
        columns: dict[str, str],
        label_names: list[str] | None = None,
        max_length: int | None = None,
    ):
        self.processor = processor
        self.columns = columns
        self.label_names = label_names
        self.max_length = max_length
        self.left_out: dict[str, set[int]] = {kind: set() for kind in self.partly_read}  # places of encoded rows

    @classmethod
    def auto_model(cls):
        """What loads and makes this task's models: the `transformers` auto class (imported on first use), or anything
        with its `from_pretrained`, which can give `output_loading_info`, and its `from_config`. What they return is a
        `PreTrainedModel`."""
        return getattr(importlib.import_module("transformers"), cls.auto_class)

    @classmethod
    def load_config(cls, name_or_path: str, **hub_kwargs):
        """The configuration of a model on the Hub or in a folder, without its weights: a `PreTrainedConfig`. Raises
        whatever its library raises, and `UserError` for a folder of `diffusers`."""
        if (Path(name_or_path) / "model_index.json").is_file():
            raise UserError(
                f"{name_or_path} is a pipeline of diffusers, which {cls.name} cannot read: say `task` "
                "image_generation (drawn by class), unconditional_image_generation or text_to_image, of the extra "
                "hf_unlearn[diffusion]"
            )
        return importlib.import_module("transformers").AutoConfig.from_pretrained(name_or_path, **hub_kwargs)

    def save_model(self, model: Any, folder: str | os.PathLike, **options: Any) -> None:
        """Write a model, inside all wrappers, and the processor into `folder`, so that `auto_model` loads them.

        `options` are those of the model's `save_pretrained`; of a `PeftModel` the adapter is written.
        """
        model.save_pretrained(folder, **options)
        self.processor.save_pretrained(folder)

    @classmethod
    def model_files(cls, folder: Path) -> list[str] | None:
        """Names, relative to `folder`, of the files of a whole model that [`save_model`] leaves: all of them may be
        pushed. `None` for the usual ones of `transformers`, or where there is no whole model."""
        return None

    @classmethod
    def usage(cls, model_id: str) -> str | None:
        """Python that loads the model and runs it once, for the model card; `None` for a `pipeline` of
        `transformers`."""
        return None

    @classmethod
    def units(cls) -> dict[str, str] | None:
        """What accuracy and loss are called in evidence, where they are others than usual."""
        return None if cls.loss_unit == "nats" else {"accuracy": cls.accuracy_name, "loss": cls.loss_unit}

    def asked_things(self, most: int, seed: int) -> Any | None:
        """With `--generate`: what has models of this task show something of their own and keeps it side by side, an
        object like [`Answers`](../evaluation/answers.py), with its `key`, `ask`, `block`, `text` and `save`. `None`
        for tasks whose rows have prompts.

        Args:
            most: things of each kind.
            seed: draws them.
        """
        return None

    @classmethod
    def check_installed(cls) -> None:
        """Raises `UserError` naming what to install, where a module that the task needs is missing."""
        for module, package in cls.needs.items():
            if importlib.util.find_spec(module) is None:
                raise UserError(f"`task` {cls.name} needs the package {module}: pip install '{package}'")

    def check_method(self, method: type) -> None:  # noqa: B027
        """Raises `UserError` for a method, an `UnlearningTrainer`, that asks more of predictions than there is."""

    def advice(self, method: type, of_classes: bool) -> list[str]:
        """What a user should know of a method that serves this task badly, in sentences; they stand in the plan and in
        the run's notes.

        Args:
            of_classes: whether whole classes are forgotten, not some of their rows.
        """
        return []

    @classmethod
    def serves(cls, model: torch.nn.Module) -> bool:
        """Whether the class of `model`, inside all wrappers, is one that `auto_model` loads."""
        return cls.serves_class(type(unwrap(model)).__name__)

    @classmethod
    def serves_class(cls, name: str) -> bool:
        """Whether a class of this name is one that `auto_model` loads."""
        names = set()
        for known in cls.auto_model()._model_mapping._model_mapping.values():
            names |= {known} if isinstance(known, str) else set(known)
        return name in names

    @classmethod
    @abstractmethod
    def load_processor(cls, name_or_path: str, **hub_kwargs):
        """Tokenizer or image processor of a model on the Hub or in a folder. Raises `UserError` if there is none."""

    @classmethod
    def processor_for(cls, config: dict[str, Any]):
        """A processor for a model that is trained from scratch with these values; `None` where none can be made."""
        return None

    @classmethod
    @abstractmethod
    def detect_columns(cls, column_names: list[str], features: Any, overrides: dict[str, str]) -> dict[str, str]:
        """Which column plays which role (`image`, `text`, `label`, `question`, …). `overrides` come from the user.

        Raises `UserError` naming the columns that exist when a role cannot be filled.
        """

    @abstractmethod
    def encode(self, rows: dict[str, list], positions: list[int]) -> list[dict[str, Any]]:
        """Raw columns of a few rows to model features, one dict per row, `labels` included. No randomness.

        `positions` are the rows' places in the source. Raises `RowError(position, reason)` for a row that cannot be
        used (an unreadable image, no text, no supervised token).
        """

    @abstractmethod
    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Encoded rows to one padded batch of tensors, with `labels`: `(batch,)`, or `(batch, seq)` for causal LMs."""

    @abstractmethod
    def predict(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Predictions:
        """Run `model` (wrapped by DDP/FSDP or not) once on a collated batch, without passing labels to it."""

    def host_facts(self, batch: dict[str, torch.Tensor]) -> dict[str, list]:
        """What [`Task.predict`] would otherwise have to ask the device about a collated batch: lists with an entry for
        each row, added to the batch while it is on the host. None for most tasks."""
        return {}

    def check_model(self, model: torch.nn.Module) -> None:  # noqa: B027
        """Raises `UserError` if `model` cannot do this task on this data."""

    @classmethod
    def has_labels(cls) -> bool:
        """Whether rows have labels that a request may name: one, or any number."""
        return cls.has_classes or cls.has_label_sets

    @classmethod
    def chooses_class(cls) -> bool:
        """Whether a row has one class, and its logits are those of the classes."""
        return cls.has_classes and cls.says_labels

    def label_id(self, value: Any, position: int) -> int:
        """The id of a raw label, for tasks with classes."""
        raise NotImplementedError(f"rows of {self.name} have no classes")

    @property
    def has_answers(self) -> bool:
        """Whether rows have an answer that [`with_answers`] can replace."""
        return False

    def with_answers(self, rows: dict[str, list], answers: list[str]) -> dict[str, list]:
        """Raw columns of a few rows with other answers, one for each row; for tasks with answers."""
        raise NotImplementedError(f"rows of {self.name} have no answers")

    def token_mask(self, batch: dict[str, torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
        """Which positions of a layer's output `(batch, seq, hidden)` are the row's own: `(batch, seq)` bool.

        Positions that are not padding; for causal LMs the answer's tokens.
        """
        mask = batch.get("attention_mask")
        if mask is None or mask.shape != hidden.shape[:2]:
            return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return mask.bool()

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Check a freshly loaded model and settle what depends on it (padding id, longest input).

        Call it once, before rows are encoded. Raises `UserError` as [`Task.check_model`] does.
        """
        self.check_model(model)

    def settle_trained(self, model: torch.nn.Module) -> None:  # noqa: B027
        """Take `requires_grad` from the parts of a model, wrapped or not, that unlearning leaves as they are, whatever
        its training changed. Called before a trainer counts the weights; most tasks have no such parts."""

    def try_model(self, model: torch.nn.Module, features: dict[str, Any]) -> None:
        """Let `model` read one encoded row. Raises `UserError` if it cannot: an image of another size, a token beyond
        its vocabulary. Leaves no trace."""
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in self.collate([features]).items()}
        with eval_mode(model), kept_randomness(device), torch.no_grad():
            try:
                self.predict(model, batch)
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError) as error:
                raise UserError(f"the model cannot read the data's rows: {in_one_line(error)}") from error

    @torch.no_grad()
    def embed(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean of the backbone's last hidden state over tokens or pixels, `(batch, hidden)`: finds near duplicates."""
        inner = unwrap(model)
        backbone = inner.base_model
        # Wrappers without a backbone of their own show their hidden states only when asked.
        ask = {"output_hidden_states": True} if backbone is inner else {}
        return _mean_place(backbone(**model_inputs(model, batch), **ask), batch)

    @torch.no_grad()
    def predict_and_embed(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[Predictions, torch.Tensor]:
        """[`predict`] and [`embed`] from one forward; from two for a model without a backbone of its own."""
        inner = unwrap(model)
        backbone: torch.nn.Module = inner.base_model
        last: dict[str, Any] = {}
        handle = backbone.register_forward_hook(lambda module, args, output: last.update(output=output))
        try:
            predictions = self.predict(model, batch)
        finally:
            handle.remove()
        if backbone is inner or not last:
            return predictions, self.embed(model, batch)
        return predictions, _mean_place(last["output"], batch)


def _mean_place(output: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean of a backbone's last hidden state over the tokens or pixels of each row, `(batch, hidden)`."""
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None:
        hidden = output.hidden_states[-1] if getattr(output, "hidden_states", None) else output[0]
    if hidden.dim() == 4:  # (batch, channels, height, width)
        return hidden.flatten(2).mean(2)
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.flatten(1, -2).mean(1)
    hidden, mask = by_row(hidden, batch), by_row(mask, batch)
    weight = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
