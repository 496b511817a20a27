"""Unlearning from Python: one call for a model, its processor and its rows, and a result to look at, save or push."""

import inspect
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from transformers import TrainerCallback

from hf_unlearn.data.given import Forget, are_rows, prepare_given, request_of, source_of, task_of, told_as_given
from hf_unlearn.data.prepare import Prepared
from hf_unlearn.data.sources import Source, join_forget_retain
from hf_unlearn.data.splits import UnlearningSplits
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.original_check import check_original
from hf_unlearn.evaluation.own_answers import NO_REACH, ask_model, prompt_rows
from hf_unlearn.evaluation.references import check_apart, check_reference
from hf_unlearn.exits import nearest
from hf_unlearn.methods import get_method
from hf_unlearn.models import lora
from hf_unlearn.models.by_name import load_by_name
from hf_unlearn.models.given_adapter import check_active
from hf_unlearn.models.weights import WIDENED, check_finite, widen
from hf_unlearn.progress import say
from hf_unlearn.report.html import render_cell
from hf_unlearn.report.table import render_table
from hf_unlearn.tasks import get_task
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.handover import check_room, final_model, save_result, score_model, trainer_evidence
from hf_unlearn.trainers.known_base import recipe_for
from hf_unlearn.trainers.progress_bar import ProgressBar
from hf_unlearn.trainers.ranges import check_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftModel

    from hf_unlearn.data.given import GivenRows
    from hf_unlearn.trainers.base import UnlearningTrainer
    from hf_unlearn.trainers.config import KnownRecipe


@dataclass(repr=False)
class UnlearningResult:
    """What [`unlearn`] gives back; prints as the table of its figures.

    Args:
        model: the unlearned model. An adapter that `unlearn` added is merged into it.
        trainer: that did it, with its log (`trainer.state.log_history`).
        splits: the rows in their roles.
        evidence: everything measured, as `evidence.json` holds it.
        folder: where the result is saved; `None` where it is not.
    """

    model: nn.Module
    trainer: "UnlearningTrainer"
    splits: UnlearningSplits
    evidence: dict[str, Any]
    folder: Path | None = None

    def __repr__(self) -> str:
        rows = f"{len(self.splits.forget):,} of {len(self.splits.forget) + len(self.splits.retain):,} training rows"
        return f"{self.trainer.method}: {rows} to be forgotten\n\n{render_table(self.evidence)}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the head of the report."""
        return render_cell(self.evidence)

    def save(self, folder: str | Path, *, save_adapter: bool = False) -> Path:
        """Write the model (an adapter merged, unless `save_adapter`), its processor, the evidence, report and card."""
        save_result(self.trainer, self.evidence, folder, save_adapter=save_adapter)
        self.folder = Path(folder)
        return self.folder

    def push_to_hub(self, repo_id: str, **options: Any) -> str | None:
        """Push the saved folder; `options` are those of [`hf_unlearn.hub.upload.push`]. Raises `UserError`."""
        from hf_unlearn.hub.upload import push

        if self.folder is None:
            raise UserError("the result is not saved, so there is nothing to push: call save(folder) first")
        return push(self.folder, repo_id, **options) if self.trainer.is_world_process_zero() else None


def unlearn(
    model: nn.Module | str | Path,
    processor: Any = None,
    dataset: "GivenRows | Mapping[str, GivenRows] | None" = None,
    *,
    forget: Forget,
    validation: "GivenRows | None" = None,
    test: "GivenRows | None" = None,
    method: "str | type[UnlearningTrainer]" = "nabla_tau",
    task: str | type[Task] | None = None,
    columns: dict[str, str | Sequence[str]] | None = None,
    max_length: int | None = None,
    forget_duplicates: bool = False,
    split_seed: int = 0,
    use_peft: bool = False,
    dtype: str = "float32",
    retrained: Sequence[nn.Module] = (),
    base: str | nn.Module | None = None,
    recipe: "KnownRecipe | None" = None,
    output_dir: str | Path | None = None,
    callbacks: list[TrainerCallback] | None = None,
    **config: Any,
) -> UnlearningResult:
    """Unlearn rows from a trained model.

        result = unlearn("my-model", dataset="train.csv", test="test.csv", forget={"customer_id": ["C-104", "C-7"]})

    Args:
        model: the model that must forget, full or a `PeftModel`; changed in place. Or its name on the Hub or folder.
        processor: its tokenizer or image processor, or where that is; by default where the model came from.
        dataset: the rows it was trained on, or `train` beside `validation` and `test` by these names: each a
            `datasets.Dataset`, a pandas `DataFrame`, a list of dicts, or a file, which is read as on the command line.
        forget: which of them must go: values by column, a [`ForgetRequest`], places or a mask of training rows, a data
            set of them (or of rows beside them), a function of a row, names of classes, a share of the rows, or
            prompts to a language model, whose answers are shown, put beside the rows, and forgotten.
        validation, test: rows it was not trained on; without `validation`, half of `test` is, by `split_seed`.
        method, task: name, class, or `module:Class`; the task is by default that of the model's class.
        columns: roles of columns, where their names do not tell: `{"label": "intent"}`, `{"label": ["rude", "mad"]}`.
        max_length, forget_duplicates: longest sequence in tokens; also forget kept rows that repeat a forgotten one.
        use_peft: unlearn through a LoRA adapter, merged in the end. (For other settings give a `PeftModel`.)
        dtype: "float32" widens weights of 16 bits that would be trained: most steps get lost in them. "auto" does not.
        retrained: models that never saw the forget rows, to compare with.
        base, recipe: what it was fine-tuned from, for better targets (default: by its card); or a [`KnownRecipe`].
        output_dir: where the result is saved; by default it stays in memory.
        callbacks, config: for the trainer, and fields of its config, e.g. `num_train_epochs`, `learning_rate`, `seed`.

    Raises `UserError` for whatever does not fit together; nothing is trained then.
    """
    source = _source(processor, dataset, validation, test)
    model, processor, task_class = _loaded(model, processor, task)
    _check_given(model, retrained, output_dir, max_length=max_length, split_seed=split_seed)
    with told_as_given(forget), _folder(output_dir) as folder, _given_adapter(model):
        args = _config(get_method(method).config_class, folder, config)
        given = {"columns": columns, "max_length": max_length, "forget_duplicates": forget_duplicates}
        rows = _prepare(model, processor, task_class, source, forget, seed=args.seed, split_seed=split_seed, **given)
        parts: Any = {"splits": rows.splits, "task": rows.task, "recipe": recipe_for(rows, model, base, recipe)}
        trained = _trained(model, rows, args.seed, use_peft=use_peft, dtype=dtype)
        trainer = get_method(method)(model=trained, args=args, callbacks=callbacks, quiet=True, **parts)
        unlearned = _run(trainer, rows, retrained, folder=output_dir, added=trained is not model)
    return _result(trainer, unlearned, output_dir)


def _source(processor: Any, dataset: Any, *unseen: Any) -> Source:
    """Raises `UserError` for rows in the place of the processor, and what else is no rows."""
    if dataset is None and are_rows(processor):
        raise UserError("rows stand in the place of the processor; name them: unlearn(model, dataset=…)")
    return source_of(dataset, *unseen)


def _check_given(
    model: nn.Module, retrained: Sequence[nn.Module], output_dir: str | Path | None, **numbers: int | None
) -> None:
    """Raises `UserError` for numbers out of their ranges, twins that are no list of models, and a folder that cannot
    hold the result."""
    check_ranges(numbers)
    if isinstance(retrained, nn.Module) or not all(isinstance(twin, nn.Module) for twin in retrained):
        raise UserError("retrained= takes a list of models, loaded with from_pretrained")
    if output_dir is not None:
        check_room(Path(output_dir), "output_dir", model)


def _show_progress(trainer: "UnlearningTrainer") -> None:
    """As calm as the command: a bar on a terminal, elsewhere a line every ten seconds."""
    if not trainer.args.disable_tqdm:
        trainer.add_callback(ProgressBar(f"unlearning ({trainer.method})"))
        trainer.side_progress = ProgressBar


def _config(config_class, folder: str, values: dict[str, Any]):
    known = [field.name for field in fields(config_class) if field.init]
    for name in values:
        if name not in known:
            hint = (
                "; name columns in columns={…}"
                if name.endswith("_column")
                else nearest(name, {*known, *inspect.signature(unlearn).parameters}, unknown="")
            )
            raise UserError(f"unlearn and {config_class.__name__} have no argument '{name}'{hint}")
    try:
        return config_class(output_dir=folder, **values)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"the arguments are refused by transformers: {' '.join(str(error).split())}") from None


def _loaded(model: Any, processor: Any, task: str | type[Task] | None) -> tuple[nn.Module, Any, type[Task]]:
    """Model, processor and task, of which the first two may be named. Raises `UserError`."""
    name = str(model) if isinstance(model, str | Path) else None
    if name is not None:
        model = load_by_name(name, get_task(task) if task else None)
    if not isinstance(model, nn.Module):
        raise UserError(f"model= is {type(model).__name__}: give a model, or its name on the Hub or its folder")
    task_class = get_task(task or task_of(model))
    task_class.check_installed()
    if processor is None or isinstance(processor, str | Path):
        processor = _processor(task_class, model, str(processor) if processor else None, name)
    if not callable(processor):
        raise UserError(
            f"processor= is {type(processor).__name__}: give a tokenizer or image processor, or its folder"
        )
    return model, processor, task_class


def _processor(task_class: type[Task], model: nn.Module, named: str | None, name: str | None) -> Any:
    """The one that is named, or that of the model's place; of an adapter that was saved without one, its base's."""
    base = unwrap(model).config._name_or_path
    try:
        return task_class.load_processor(named or name or base)
    except UserError:
        if named or not (name and lora.is_peft(model)):
            raise
        return task_class.load_processor(base)


def _prepare(
    model, processor, task_class: type[Task], source: Source, forget: Forget, *, max_length, seed, columns, **options
) -> Prepared:
    def make_task(columns: dict[str, str], label_names: list[str] | None) -> Task:
        return task_class(processor, columns, label_names=label_names, max_length=max_length)

    noted: list[str] = []
    if _is_prompts(forget) and not task_class.has_labels():
        prompts: Any = [forget] if isinstance(forget, str) else forget
        forget = _answers(model, source, prompts, task_class, columns, make_task)
        noted.append(NO_REACH)
    request, source = request_of(forget, source, seed)
    prepared = prepare_given(model, source, request, task_class, make_task, seed=seed, columns=columns, **options)
    prepared.report.notes += noted
    return prepared


def _is_prompts(forget: Forget) -> bool:
    return isinstance(forget, str) or (
        isinstance(forget, Sequence) and bool(forget) and all(isinstance(item, str) for item in forget)
    )


def _answers(model, source: Source, prompts: Sequence[str], task_class: type[Task], columns, make_task) -> list[int]:
    """The model's answers to the prompts, shown and put before the kept rows in `source.train`; their places."""
    task = make_task(task_class.detect_columns(source.train.column_names, source.train.features, columns or {}), None)
    task.prepare_model(model)
    pairs = ask_model(model, task, source.train, prompts)
    for prompt, answer in pairs:
        say(f"to be forgotten: {prompt}  →  {answer}")
    source.train, places = join_forget_retain(prompt_rows(task, source.train, pairs), source.train)
    return places.tolist()


def _trained(model: nn.Module, rows: Prepared, seed: int, *, use_peft: bool, dtype: str) -> nn.Module:
    """The model as it is trained: with an adapter where one is asked for, and wide enough to move."""
    if use_peft and lora.is_peft(model):
        raise UserError("use_peft=True: the model has an adapter already; leave use_peft out")
    if dtype not in ("float32", "auto"):
        raise UserError(f"dtype= is {dtype!r}; it is 'float32', or 'auto' for the model's own")
    if use_peft:
        model = lora.add_lora(unwrap(model), r=8, alpha=16, dropout=0.0, task_type=rows.task.peft_task_type, seed=seed)
    if dtype == "float32" and widen(model):
        rows.report.notes.append(WIDENED)
    return model


@contextmanager
def _given_adapter(model: nn.Module) -> Iterator[None]:
    """Inside, a model whose adapter learned the rows is known as one that came with it: its base never saw a row."""
    check_active(model, lora.ADAPTER)
    came = lora.is_peft(model) and not lora.came_with_adapter(model) and not lora.is_fresh(model)
    if came:
        lora.add_reference_adapter(cast("PeftModel", model))
    try:
        yield
    finally:
        if came:
            lora.drop_reference_adapter(cast("PeftModel", model))


def _run(
    trainer: "UnlearningTrainer",
    rows: Prepared,
    retrained: Sequence[nn.Module],
    *,
    folder: str | Path | None,
    added: bool,
) -> nn.Module:
    """Train, and put the evidence beside the trainer, measured on what is saved or given back. Returns the unlearned
    model: without the adapter if `unlearn` `added` it."""
    _show_progress(trainer)
    for name, model in (("model", trainer.model), *((f"retrained[{k}]", twin) for k, twin in enumerate(retrained))):
        check_finite(model, name)
    rows.measure_digest()
    trainer.forget_digest = rows.digest
    before = score_model(trainer)
    twins = [score_model(trainer, twin) for twin in retrained]
    warnings = [check_original(before)]
    warnings += [check_reference(before, twin, f"retrained[{k}]") for k, twin in enumerate(twins)]
    check_apart({f"retrained[{k}]": twin for k, twin in enumerate(twins)})
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    seconds = time.perf_counter() - start
    trainer.release()
    model = final_model(trainer, save_adapter=not (added or folder))
    data = rows.describe()
    request = data["request"]
    if request is not None and request["kind"] == "dataset":  # given as places, not as a data set
        request["kind"] = "rows"
    trainer.evidence = trainer_evidence(
        trainer,
        before=before,
        after=score_model(trainer, model),
        twins=twins,
        data=data,
        cost={"unlearn_seconds": seconds},
        notes=[*rows.report.notes, *itertools.chain(*warnings)],
    )
    return model if added else trainer.accelerator.unwrap_model(trainer.model)


def _result(trainer: "UnlearningTrainer", model: nn.Module, output_dir: str | Path | None) -> UnlearningResult:
    trainer.args.output_dir = str(output_dir or "unlearned")
    result = UnlearningResult(model, trainer, trainer.splits, trainer.evidence)
    if output_dir is not None:
        result.save(output_dir)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    return result


@contextmanager
def _folder(output_dir: str | Path | None) -> Iterator[str]:
    """The trainer's folder: the one that is named, or one that is gone afterwards."""
    if output_dir is not None:
        yield str(output_dir)
    else:
        with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as folder:
            yield folder
