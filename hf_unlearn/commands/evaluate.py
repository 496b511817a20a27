"""`hf-unlearn evaluate`: the evidence for a model that was unlearned elsewhere."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hf_unlearn.data import tofu
from hf_unlearn.data.sources import load_source
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation import account
from hf_unlearn.evaluation.answers import ORIGINAL, UNLEARNED
from hf_unlearn.evaluation.comparison import ModelScores
from hf_unlearn.evaluation.generation import MAX_NEW_TOKENS
from hf_unlearn.evaluation.language_metrics import DEFINITIONS
from hf_unlearn.evaluation.language_table import LanguageData, language_block, measure
from hf_unlearn.evaluation.perturbed import make_choices
from hf_unlearn.evaluation.references import check_apart, check_reference
from hf_unlearn.progress import quiet_libraries, quietly, say
from hf_unlearn.report.blocks import Evidence, Language, Method
from hf_unlearn.report.evidence import plain, write_json
from hf_unlearn.report.html import render_html
from hf_unlearn.report.screen import render_screen
from hf_unlearn.run import results, stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.checks import check
from hf_unlearn.run.command_arguments import parse_with_own
from hf_unlearn.run.durability import stress_models
from hf_unlearn.run.judged import check_rows, check_tokenizer, reuse_division, stored_evidence
from hf_unlearn.run.loading import check_exists, get_recipe, load_model, placed
from hf_unlearn.run.rows import Data, prepare_data
from hf_unlearn.run.stopping import AGAIN, told_how_to_go_on

MADE_ELSEWHERE: Method = {"name": "made elsewhere", "paper": None, "hyperparameters": None}
NO_ORIGINAL = "No original was given: what the model lost by the unlearning cannot be said."
RECIPES_ORIGINAL = "The original was made by the recipe, not given: the one that was unlearned may be another."
GIVEN_REFERENCES = "The reference models were given: that they never saw the forgotten rows is their makers' word."
LANGUAGE_ONLY = ("perturbed_data", "real_authors", "world_facts")
NAME_REFERENCES = "name models that never saw the forgotten rows"


@dataclass
class EvaluateArguments:
    """The evidence for an unlearned model: --model_name_or_path is the original, --reference_model retrained ones."""

    unlearned_model: str | None = field(
        default=None, metadata={"help": "Hub name or folder of the model to be judged, or of its adapter."}
    )
    classifier_attacks: bool = field(
        default=True, metadata={"help": "Also the membership attacks that train a classifier (seconds to minutes)."}
    )
    max_new_tokens: int = field(
        default=MAX_NEW_TOKENS, metadata={"help": "causal_lm: longest generated answer in tokens; 0 generates none."}
    )
    definition: str | None = field(
        default=None,
        metadata={"help": "causal_lm: whose definitions the figures follow (default: ours; tofu with --forget_split).",
                  "choices": sorted(DEFINITIONS)},
    )  # fmt: skip
    perturbed_data: list[str] | None = field(
        default=None,
        metadata={"help": "causal_lm: data sets with wrong answers (perturbed_answer) to some of the rows' questions, "
                  "where the rows have none themselves (with --forget_split: TOFU's own).", "nargs": "+"},
    )  # fmt: skip
    real_authors: str | None = field(
        default=None, metadata={"help": "causal_lm, pretrained models: TOFU's questions about real authors."}
    )
    world_facts: str | None = field(
        default=None, metadata={"help": "causal_lm, pretrained models: TOFU's questions about the world."}
    )


def evaluate(argv: list[str] | None = None) -> None:
    """Score the original, the unlearned model and the references, and write what they show side by side."""
    own, arguments = parse_with_own(EvaluateArguments, "evaluate", argv)
    has_original = _settle_models(own, arguments)
    stored = stored_evidence(own.unlearned_model)
    reuse_division(arguments, stored)
    check(arguments)
    quiet_libraries()
    silent = quietly(arguments.run.quiet or arguments.run.json)
    with silent, stages.nothing_left_behind(arguments), told_how_to_go_on(arguments, AGAIN):
        check_exists(arguments, own.unlearned_model)
        data = prepare_data(arguments)
        results.print_data(data)
        for name in LANGUAGE_ONLY:
            if getattr(own, name) is not None and not data.task.generates:
                raise UserError(f"--{name} is for tasks that generate (causal_lm), and this is {data.task.name}")
        if has_original:
            check_tokenizer(arguments, data, own.unlearned_model)
        unlearned = load_model(arguments, data.task, own.unlearned_model) if has_original else data.loaded
        if arguments.run.dry_run:
            stages.try_references(arguments, data)
            return results.print_nothing_written(arguments, data)
        if not arguments.request.near_duplicates:
            data.report.notes += check_rows(data, stored)
        references = stages.load_references(arguments, data)
        original = stages.get_original(arguments, data) if has_original else None
        if original is not None and arguments.request.near_duplicates:
            stages.look_for_near_duplicates(arguments, data, original)
            data.report.notes += check_rows(data, stored)
        models = {} if original is None else {"original": original.model}
        models["unlearned"] = unlearned
        twins = stages.make_twins(arguments, data) + references
        models |= {f"twin {k}": twin.model for k, twin in enumerate(twins, 1)}
        evidence = make_evidence(own, arguments, data, models)
        if int(torch.distributed.get_rank() if torch.distributed.is_initialized() else 0) == 0:
            save(Path(arguments.trainer.output_dir), data, evidence, arguments.run.json)


def make_evidence(
    own: EvaluateArguments, arguments: Arguments, data: Data, models: dict[str, torch.nn.Module]
) -> Evidence:
    """The evidence for `models`: `original` (may be missing), `unlearned`, and any number of others as twins."""
    scores, language = score_models(own, arguments, data, models)
    original, unlearned = scores.get("original"), scores["unlearned"]
    twins = [scores[name] for name in models if name not in ("original", "unlearned")]
    given = {f"reference {k}": each for k, each in enumerate(twins[arguments.recipe.retrain :], 1)}
    check_apart(given)
    for name, reference in given.items():
        stages.warn(data, check_reference(original, reference, name))
    evidence = account.make_evidence(
        account.Scored(original, unlearned, twins),
        method=MADE_ELSEWHERE,
        task=data.task.name,
        units=data.task.units(),
        model=account.describe_model(models["unlearned"], trained=False),
        data=data.describe(publish=arguments.request.publish_request),
        seeds=results.seeds(arguments),
        recipe=get_recipe(arguments).describe() if arguments.has_recipe else None,
        device=arguments.trainer.device,
        classifiers=own.classifier_attacks,
        notes=[*data.report.notes, *_notes(arguments, models)],
    )
    if language is not None:
        evidence["language"] = language
    if data.answers is not None:
        evidence[data.answers.key] = data.answers.block()  # type: ignore[literal-required]
    if arguments.run.stress:
        evidence["stress"] = stress_models(arguments, data, models)
    return evidence


def score_models(
    own: EvaluateArguments, arguments: Arguments, data: Data, models: dict[str, torch.nn.Module]
) -> tuple[dict[str, ModelScores], Language | None]:
    """One pass over the reported splits for each model, and of language models the block `language`."""
    if not data.task.generates:
        scores = {name: stages.score_model(arguments, data, model, title(name)) for name, model in models.items()}
        return scores, None
    rows = language_data(own, arguments, data)
    device, batch = arguments.trainer.device, arguments.trainer.per_device_eval_batch_size
    measured = {}
    for name, model in models.items():
        say(f"scoring {title(name)}")
        measured[name] = measure(placed(model, device), rows, account.SCORED, batch_size=batch)
        stages.ask(arguments, data, model, title(name))
    return {name: found.scores for name, found in measured.items()}, language_block(measured, rows)


def language_data(own: EvaluateArguments, arguments: Arguments, data: Data) -> LanguageData:
    """What language models are measured on beside the rows. Raises `UserError` for data that cannot be read."""

    def load(name: str):
        return load_source(name, train_split=arguments.data.train_split, task=data.task.name).train

    given = {"real_authors": own.real_authors, "world_facts": own.world_facts}
    others = [load(name) for name in own.perturbed_data or []]
    general = {role: load(name) for role, name in given.items() if name is not None}
    forget_split = arguments.request.forget_split
    if forget_split is not None:
        rows, known = tofu.load_choices(arguments.data.dataset_name or "", forget_split)
        others += rows
        if arguments.recipe.original_model_type is None:  # a model from scratch has not heard of them
            general = known | general
    definition = own.definition or ("ours" if forget_split is None else "tofu")
    options = {"max_new_tokens": own.max_new_tokens, "definition": DEFINITIONS[definition]}
    found = LanguageData.build(
        data.task, stages.scored_splits(arguments, data), others, seed=arguments.trainer.seed, **options
    )
    found.choices |= {role: make_choices(data.task, rows) for role, rows in general.items()}
    return found


def save(folder: Path, data: Data, evidence: Evidence, as_json: bool = False) -> None:
    """Write `evidence.json`, `report.html` and the page of answers, and print answers and table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evidence.json", evidence)
    (folder / "report.html").write_text(render_html(evidence), encoding="utf-8")
    results.save_answers(data, folder)
    if as_json:
        return print(json.dumps(plain(evidence), ensure_ascii=False))
    results.print_answers(data)
    print("\n" + render_screen(evidence))
    print(f"\nevidence.json and report.html are in {folder}")


def title(name: str) -> str:
    """How a model is called on the screen."""
    return {"original": ORIGINAL, "unlearned": UNLEARNED}.get(name, name)


def _settle_models(own: EvaluateArguments, arguments: Arguments) -> bool:
    """Check which models there are, before anything is loaded. Returns whether there is an original.

    Without one the unlearned model stands where the arguments name the model, because that settles how rows are
    encoded and that no row may be taken out of the training rows.
    """
    if own.unlearned_model is None:
        raise UserError("no --unlearned_model; name the model to be judged")
    own.unlearned_model = os.path.expanduser(own.unlearned_model)
    given = arguments.model.model_name_or_path
    if given is not None and same_model(given, own.unlearned_model):
        raise UserError("--unlearned_model is the original (--model_name_or_path); name the one that was unlearned")
    for reference in arguments.recipe.reference_model or []:
        if same_model(reference, own.unlearned_model):
            raise UserError(
                "--reference_model names the unlearned model; name models that never saw the forgotten rows"
            )
        if given is not None and same_model(reference, given):
            raise UserError("--reference_model names the original; name models that never saw the forgotten rows")
    if given is None and not arguments.has_recipe:
        arguments.model.model_name_or_path = own.unlearned_model
        return False
    return True


def same_model(name: str, other: str) -> bool:
    """Whether two names mean one model: the same name, or two spellings of one folder."""
    return name == other or (Path(name).exists() and Path(other).exists() and Path(name).samefile(other))


def _notes(arguments: Arguments, models: dict[str, torch.nn.Module]) -> list[str]:
    notes = []
    if "original" not in models:
        notes.append(NO_ORIGINAL)
    elif arguments.model.model_name_or_path is None:
        notes.append(RECIPES_ORIGINAL)
    if arguments.recipe.reference_model:
        notes.append(GIVEN_REFERENCES)
    return notes
