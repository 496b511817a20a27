"""`hf-unlearn lira`: a method judged row by row with one pool of shadow models: U-LiRA, RULI, KLoM and ε."""

import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from hf_unlearn.data.build import training_rows
from hf_unlearn.data.columns import column_codes
from hf_unlearn.data.content import features_digest
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.shadow_plan import FixedPlan, ShadowPlan, fixed_plan, make_plan
from hf_unlearn.evaluation.shadow_verdicts import verdicts
from hf_unlearn.progress import quiet_libraries, quietly, say
from hf_unlearn.report.blocks import Evidence, Lira
from hf_unlearn.report.evidence import environment, plain, read_evidence, write_json
from hf_unlearn.report.html import render_html
from hf_unlearn.report.screen import aligned
from hf_unlearn.report.shadow_table import sentences, shadow_rows
from hf_unlearn.report.table import WIDTH
from hf_unlearn.run import results, stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.checks import check
from hf_unlearn.run.command_arguments import parse_with_own
from hf_unlearn.run.rows import Data, prepare_data
from hf_unlearn.run.shadow_models import ShadowMaker
from hf_unlearn.run.stopping import AGAIN, told_how_to_go_on

SCHEMA_VERSION = 2
DRAWN_NOTES = (
    "Forget sets are drawn at random, as large a share as the request; the request's own rows are not singled out.",
    "Each audited row is in a random half of the models; of each model the method unlearns several forget sets.",
)
FIXED_NOTES = (
    "Half of the models have the removed classes and unlearn them, half never saw them; two models are one trial.",
)
NOTES = (
    "original: before any unlearning. twins: exact retraining, whose rows are all never-seen; it shows chance.",
    "RULI by kernel densities. Privacy: unlearned rows against rows that the same kind of model never had; efficacy: "
    "against models that were trained without them and unlearned nothing.",
)


@dataclass
class LiraArguments:
    """Is a row that the method unlearned told from one that was never there? Trains shadow and target models by the
    recipe, unlearns random forget sets (or the classes asked for) from them, and keeps what it measured, so that a
    stopped run goes on. One pool, four verdicts: U-LiRA, RULI's games, KLoM and ε."""

    shadows: int = field(default=32, metadata={"help": "Shadow models; at least 4. From 64 on, a variance per row."})
    targets: int = field(default=4, metadata={"help": "Target models, which the attack is tried on."})
    forget_sets: int = field(default=4, metadata={"help": "Forget sets unlearned from each model."})
    add_to: str | None = field(
        default=None,
        metadata={"help": "Folder of a finished run of the method: its evidence gets the figures."},
    )


def lira(argv: list[str] | None = None) -> None:
    """Make the models that are not there yet, attack the targets, and write `lira.json`."""
    own, arguments = parse_with_own(LiraArguments, "lira", argv)
    _check(own, arguments)
    check(arguments)
    evidence = _evidence_to_add_to(own, arguments)
    quiet_libraries()
    silent = quietly(arguments.run.quiet or arguments.run.json)
    with silent, stages.nothing_left_behind(arguments), told_how_to_go_on(arguments, AGAIN):
        data = prepare_data(arguments)
        results.print_data(data)
        plan = plan_of(arguments, data, own.forget_sets)
        _check_pairs(own, plan)
        if evidence is not None:
            _check_same(evidence, data)
        if own.forget_sets > max(plan.sets, LiraArguments.forget_sets):
            raise UserError(f"--forget_sets is {own.forget_sets}; {plan.sets} of this size have no row in common")
        maker = ShadowMaker(arguments, data, plan, fingerprint=features_digest(training_rows(data.splits)))
        wanted = [("shadow", k) for k in range(own.shadows)] + [("target", k) for k in range(own.targets)]
        missing = [name for name in wanted if not maker.is_done(*name)]
        _say_plan(arguments, plan, wanted, missing)
        if arguments.run.dry_run:
            return results.print_nothing_written(arguments, data)
        data.model = None  # it was built to be looked at; each shadow has its own
        for role, k in missing:
            maker.make(role, k, f"{role} {k + 1} of {own.shadows if role == 'shadow' else own.targets}")
        result = attack(arguments, plan, maker, own)
        if maker.is_main_process:
            folder = Path(arguments.trainer.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "lira.json", result)
            if evidence is not None:
                evidence["lira"] = cast(Lira, lira_block(result))
                write_json(Path(own.add_to) / "evidence.json", evidence)
                (Path(own.add_to) / "report.html").write_text(render_html(evidence), encoding="utf-8")
            if arguments.run.json:
                return print(json.dumps(plain(result), ensure_ascii=False))
            print("\n" + render_lira(result) + f"\n\nlira.json is in {folder}")


def plan_of(arguments: Arguments, data: Data, sets: int) -> ShadowPlan:
    """The plan for a request: its share of the rows, and its groups where there are some; of classes its very rows."""
    splits, seed = data.splits, arguments.trainer.seed
    places, train = training_rows(splits).indices, splits.forget.source
    if data.request.kind == "classes":
        return fixed_plan(np.flatnonzero(np.isin(places, splits.forget.indices)), len(places), seed)
    group = arguments.request.group_column or data.source.group_column
    unit = np.arange(len(places)) if group is None else column_codes(train, group, "--group_column")[places]
    return make_plan(unit, len(splits.forget) / len(places), sets, seed)


def attack(arguments: Arguments, plan: ShadowPlan, maker: ShadowMaker, own: LiraArguments) -> dict[str, Any]:
    """All figures, from the arrays of the finished models; JSON types only, and none of them is of a single row."""
    numbers = {"shadow": own.shadows, "target": own.targets}
    pool = {
        role: [(maker.load(role, k), plan.division(role, k)) for k in range(number)]
        for role, number in numbers.items()
    }
    trainer, fixed = arguments.trainer, isinstance(plan, FixedPlan)
    return {
        "schema_version": SCHEMA_VERSION,
        "method": {"name": arguments.run.method, "hyperparameters": trainer.hyperparameters()},
        "shadows": own.shadows,
        "targets": own.targets,
        "forget_sets": plan.sets,
        "audited_rows": len(plan.rows),
        "forget_rows": len(plan.rows) if fixed else round(len(plan.rows) / (2 * plan.sets)),
        "training_rows": len(plan.kept(plan.division("shadow", 0))),
        **verdicts(pool, arguments.run.method, trainer.seed),
        "environment": environment(seed=trainer.seed, device=trainer.device.type),
        "notes": [*(FIXED_NOTES if fixed else DRAWN_NOTES), *NOTES],
    }


def lira_block(result: dict[str, Any]) -> dict[str, Any]:
    """The evidence block `lira`: how large the pool was, and for each kind of model what the verdicts come to."""
    sizes = {name: result[name] for name in ("shadows", "targets", "audited_rows", "memorized_rows")}
    models = {}
    for kind, found in result["attacks"].items():
        figures, games = found[found["variance"]], result["ruli"][kind]
        epsilon, klom = result["epsilon"][kind], result["klom"][kind]
        models[kind] = {"auc": figures["auc"], "tpr": figures["tpr"]}
        models[kind] |= {f"{game}_auc": by_rows["all"]["auc"] for game, by_rows in games.items()}
        models[kind] |= {f"{game}_memorized_auc": by_rows["memorized"]["auc"] for game, by_rows in games.items()}
        models[kind] |= {key: klom[key] for key in ("klom_median", "klom_p95")} | {
            "klom_null_median": klom["null_median"]
        }
        models[kind] |= {key: epsilon[key] for key in ("epsilon_median", "epsilon_p95", "null_median")}
    return sizes | {"models": models}


def render_lira(result: dict[str, Any]) -> str:
    """The figures as a table for the screen."""
    first = next(iter(result["attacks"].values()))
    variance = "a variance per row" if first["variance"] == "row" else "the variance pooled over rows"
    clustered = "over target models" if first[first["variance"]]["clustered"] else "over rows of one target model"
    legend = [f"U-LiRA: {variance}. 95 % intervals {clustered}.", *result["notes"]]
    if first[first["variance"]]["tpr"]["0.01"]["value"] is None:
        legend.append("TPR: it takes 1,000 never-seen rows over all targets.")
    block = lira_block(result)
    words = [textwrap.fill(sentence, WIDTH) for sentence in (*sentences(block), *legend)]
    return "\n".join([aligned(shadow_rows(block)), "", *words])


def _check(own: LiraArguments, arguments: Arguments) -> None:
    for name, least in (("shadows", 4), ("targets", 1), ("forget_sets", 1)):
        if getattr(own, name) < least:
            raise UserError(f"--{name} is {getattr(own, name)}; give {least} or more")
    if not arguments.has_recipe:
        raise UserError("lira trains shadow models, which takes the recipe of the original (--original_model or "
                        "--original_model_type …)")  # fmt: skip
    if arguments.run.generate:
        raise UserError("--generate is for train and evaluate; lira compares no answers")
    if arguments.run.stress:
        raise UserError("--stress is for train, evaluate and compare; lira disturbs no model")
    if getattr(arguments.trainer, "saliency_mask", None):
        raise UserError("--saliency_mask was measured on other rows than the shadows unlearn; leave it out")
    if arguments.trainer.resume_from_checkpoint:
        raise UserError("lira goes on by itself where it was stopped; leave --resume_from_checkpoint out")


def _check_pairs(own: LiraArguments, plan: ShadowPlan) -> None:
    """Where classes are removed, two models are one trial. Raises `UserError` for an odd one."""
    for name in ("shadows", "targets"):
        if isinstance(plan, FixedPlan) and getattr(own, name) % 2:
            raise UserError(f"--{name} is {getattr(own, name)}; half of the models have the removed classes and half "
                            "do not: give an even number")  # fmt: skip


def _evidence_to_add_to(own: LiraArguments, arguments: Arguments) -> Evidence | None:
    """Read before anything is trained. Raises `UserError` for a folder without evidence, or of another method."""
    if own.add_to is None:
        return None
    evidence = read_evidence(own.add_to)
    made = evidence["method"]["name"]
    if made != arguments.run.method:
        raise UserError(f"--add_to is a run of {made}, and --method is {arguments.run.method}; name a run of the same")
    return evidence


def _check_same(evidence: Evidence, data: Data) -> None:
    """Raises `UserError` where the run that gets the figures is of other rows, or has another kind of request. Forget
    sets are drawn anew, so that rows of the request itself need be the same of classes alone."""
    made, now = evidence["data"], data.describe()
    facts: dict[str, tuple[Any, Any]] = {
        "task": (evidence["task"], data.task.name),
        "data set": (made["source"], now["source"]),
        "number of training rows": (_training_rows(made), _training_rows(now)),
        "kind of request": ((made["request"] or {}).get("kind"), (now["request"] or {}).get("kind")),
    }
    keys = [(block["division"] or {}).get("key") for block in (made, now)]
    if data.request.kind == "classes" and keys[0] == keys[1] and made["splits"] == now["splits"]:
        facts["forgotten classes"] = (made["forget_digest"], now["forget_digest"])
    for name, (before, after) in facts.items():
        if before != after:
            raise UserError(f"--add_to is a run with another {name}; name a run of the same rows and request")


def _training_rows(block: Any) -> int:
    return sum((block["splits"] or {}).get(role) or 0 for role in ("forget", "retain"))


def _say_plan(arguments: Arguments, plan: ShadowPlan, wanted: list, missing: list) -> None:
    each = f"{plan.sets} forget sets of each are unlearned"
    if isinstance(plan, FixedPlan):
        each = "the classes are unlearned from half of them"
    say(f"shadows    {len(plan.rows):,} audited rows; {len(wanted)} models, {len(wanted) - len(missing)} of them done "
        f"before; {each} with {arguments.run.method}")  # fmt: skip
