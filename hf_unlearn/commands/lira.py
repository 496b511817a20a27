"""`hf-unlearn lira`: U-LiRA (Hayes et al., arXiv 2403.01218), an attack of a method row by row with shadow models."""

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
from hf_unlearn.evaluation.lira import Models, u_lira
from hf_unlearn.evaluation.row_epsilon import row_epsilons, summary
from hf_unlearn.evaluation.shadow_plan import Division, ShadowPlan, make_plan
from hf_unlearn.progress import quiet_libraries, quietly, say
from hf_unlearn.report.blocks import Evidence, Lira
from hf_unlearn.report.evidence import environment, plain, read_evidence, write_json
from hf_unlearn.report.html import render_html
from hf_unlearn.run import results, stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.checks import check
from hf_unlearn.run.command_arguments import parse_with_own
from hf_unlearn.run.rows import Data, prepare_data
from hf_unlearn.run.shadow_models import ShadowMaker
from hf_unlearn.run.stopping import AGAIN, told_how_to_go_on

SCHEMA_VERSION = 1
WIDTH = 100
TWIN_DEAL = 7  # names the stream of random numbers that deals rows to the twins
NOTES = (
    "Forget sets are drawn at random, as large a share as the request; the request's own rows are not singled out.",
    "Each audited row is in a random half of the models; of each model the method unlearns several forget sets.",
    "original: before any unlearning. twins: exact retraining, whose rows are all never-seen; it shows chance.",
)
WHAT_ORIGINAL, WHAT_TWINS = "original", "twins"


@dataclass
class LiraArguments:
    """U-LiRA: is a row that the method unlearned told from one that was never there? Trains shadow and target models
    by the recipe, unlearns random forget sets from them, and keeps what it measured, so that a stopped run goes on."""

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
        if data.request.kind == "classes":
            raise UserError("lira needs rows drawn at random: name --forget_fraction instead of --forget_classes")
        plan = plan_of(arguments, data, own.forget_sets)
        if own.forget_sets > max(plan.sets, LiraArguments.forget_sets):
            raise UserError(f"--forget_sets is {own.forget_sets}; {plan.sets} of this size have no row in common")
        maker = ShadowMaker(arguments, data, plan, fingerprint=features_digest(training_rows(data.splits)))
        wanted = [("shadow", k) for k in range(own.shadows)] + [("target", k) for k in range(own.targets)]
        missing = [name for name in wanted if not maker.is_done(*name)]
        _say_plan(arguments, plan, wanted, missing)
        if arguments.run.dry_run:
            return results.print_nothing_written(arguments, data)
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
    """The plan for a request: its share of the rows, and its groups where there are some."""
    train, seed = data.splits.forget.source, arguments.trainer.seed
    group = arguments.request.group_column or data.source.group_column
    unit = np.arange(len(train)) if group is None else column_codes(train, group, "--group_column")
    return make_plan(unit, len(data.splits.forget) / len(train), sets, seed)


def attack(arguments: Arguments, plan: ShadowPlan, maker: ShadowMaker, own: LiraArguments) -> dict[str, Any]:
    """All figures, from the arrays of the finished models; JSON types only, and none of them is of a single row."""
    divisions = {
        "shadow": [plan.division("shadow", k) for k in range(own.shadows)],
        "target": [plan.division("target", k) for k in range(own.targets)],
    }
    arrays = {role: [maker.load(role, k) for k in range(len(each))] for role, each in divisions.items()}
    method, seed = arguments.run.method, arguments.trainer.seed
    attacks, epsilons = {}, {}
    for name in (WHAT_ORIGINAL, method, WHAT_TWINS):
        sides = {
            role: _models(name, [a["unlearned" if name == method else "original"] for a in arrays[role]], each, seed)
            for role, each in divisions.items()
        }
        attacks[name] = u_lira(sides["target"], sides["shadow"])
        epsilons[name] = summary(row_epsilons(sides["shadow"], seed=seed))
    trainer = arguments.trainer
    return {
        "schema_version": SCHEMA_VERSION,
        "method": {"name": method, "hyperparameters": trainer.hyperparameters()},
        "shadows": own.shadows,
        "targets": own.targets,
        "forget_sets": plan.sets,
        "audited_rows": len(plan.rows),
        "forget_rows": round(len(plan.rows) / (2 * plan.sets)),
        "training_rows": len(plan.kept(divisions["shadow"][0])),
        "attacks": attacks,
        "epsilon": epsilons,
        "environment": environment(seed=seed, device=trainer.device.type),
        "notes": list(NOTES),
    }


def _models(name: str, phi: list[np.ndarray], divisions: list[Division], seed: int) -> Models:
    """One observation per model and row. For the twins, rows that a model never saw are dealt at random into "was in a
    larger data set and unlearned by retraining" and "never seen": a model without them is exactly that retraining."""
    member = np.stack([division.member for division in divisions])
    if name != WHAT_TWINS:
        return Models(np.stack(phi), member, ~member)
    dealt = np.random.default_rng([seed, TWIN_DEAL, len(divisions)]).random(member.shape) < 0.5
    return Models(np.stack(phi), ~member & dealt, ~member & ~dealt)


def lira_block(result: dict[str, Any]) -> dict[str, Any]:
    """The evidence block `lira`: how large the attack was, and for each kind of model its AUC, TPR and row ε."""
    block: dict[str, Any] = {name: result[name] for name in ("shadows", "targets", "audited_rows")}
    for name, found in result["attacks"].items():
        figures, epsilon = found[found["variance"]], result["epsilon"][name]
        block[name] = {"auc": figures["auc"], "tpr": figures["tpr"]} | {
            key: epsilon[key] for key in ("epsilon_median", "epsilon_p95", "null_median")
        }
    return block


def render_lira(result: dict[str, Any]) -> str:
    """The figures as a table for the screen."""
    header = ("", "AUC (%)", "TPR at 1 % FPR (%)", "ε median", "ε 95 %", "ε by chance")
    rows = [header]
    for name, found in result["attacks"].items():
        figures, epsilon = found[found["variance"]], result["epsilon"][name]
        cells = [_percent(figures["auc"]), _percent(figures["tpr"]["0.01"])]
        cells += [_number(epsilon[key]) for key in ("epsilon_median", "epsilon_p95", "null_median")]
        rows.append((name, *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["   ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    lines.insert(1, "─" * len(lines[0]))
    variance = "a variance per row" if found["variance"] == "row" else "the variance pooled over rows"
    clustered = "over target models" if found[found["variance"]]["clustered"] else "over rows of one target model"
    counts = f"{result['audited_rows']:,} audited rows, {result['shadows']} shadows, {result['targets']} targets"
    legend = [f"{counts}; {variance}; 95 % intervals {clustered}.", *result["notes"]]
    if found[found["variance"]]["tpr"]["0.01"]["value"] is None:
        legend.append("TPR: it takes 1,000 never-seen rows over all targets.")
    return "\n".join([*lines, "", *(textwrap.fill(sentence, WIDTH) for sentence in legend)])


def _percent(figure: dict) -> str:
    value, interval = figure["value"], figure["interval"]
    ends = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return "–" if value is None else f"{100 * value:.1f}{ends}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


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
        raise UserError("--stress is for train and evaluate; lira disturbs no model")
    if getattr(arguments.trainer, "saliency_mask", None):
        raise UserError("--saliency_mask was measured on other rows than the shadows unlearn; leave it out")
    if arguments.trainer.resume_from_checkpoint:
        raise UserError("lira goes on by itself where it was stopped; leave --resume_from_checkpoint out")


def _evidence_to_add_to(own: LiraArguments, arguments: Arguments) -> Evidence | None:
    """Read before anything is trained. Raises `UserError` for a folder without evidence, or of another method."""
    if own.add_to is None:
        return None
    evidence = read_evidence(own.add_to)
    made = evidence["method"]["name"]
    if made != arguments.run.method:
        raise UserError(f"--add_to is a run of {made}, and --method is {arguments.run.method}; name a run of the same")
    return evidence


def _say_plan(arguments: Arguments, plan: ShadowPlan, wanted: list, missing: list) -> None:
    say(f"U-LiRA     {len(plan.rows):,} audited rows; {len(wanted)} models, {len(wanted) - len(missing)} of them done "
        f"before; {plan.sets} forget sets of each are unlearned with {arguments.run.method}")  # fmt: skip
