"""`hf-unlearn compare`: several methods on the same originals, against the same twins, under several seeds."""

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from hf_unlearn.progress import quiet_libraries, quietly, say
from hf_unlearn.report.contest import TUNED, build_contest
from hf_unlearn.report.contest_blocks import Contest
from hf_unlearn.report.contest_page import contest_page
from hf_unlearn.report.contest_table import contest_text
from hf_unlearn.report.evidence import plain, write_json
from hf_unlearn.report.schema import problems
from hf_unlearn.run import results, stages
from hf_unlearn.run.command_arguments import own_and_rest
from hf_unlearn.run.contest_checks import check_numbers, settle_contestants
from hf_unlearn.run.contest_folder import ContestFolder, Run
from hf_unlearn.run.contest_plan import ContestPlan, read_plan, settle_names
from hf_unlearn.run.contest_progress import ContestProgress
from hf_unlearn.run.contest_seed import ContestSeed, entry_names
from hf_unlearn.run.rows import Data, prepare_data
from hf_unlearn.run.stopping import told_how_to_go_on

CONTEST, PAGE = "contest.json", "contest.html"
AGAIN = "stopped; the same command goes on: runs are kept in the output folder, originals and twins in the cache"


@dataclass
class CompareArguments:
    """A contest: methods on copies of one original, measured against one set of retrained twins, under several seeds.
    Another twin, fine-tuning and doing nothing stand beside. A stopped contest goes on where it was."""

    methods: list[str] | None = field(
        default=None, metadata={"help": "Names of methods, or all: every method that serves the task.", "nargs": "+"}
    )
    seeds: int = field(
        default=1, metadata={"help": "So many seeds, each with an original and twins of its own, from --seed on."}
    )
    tune: int = field(
        default=0,
        metadata={"help": "Beside the defaults: the best of so many learning rates by validation rows, at the cost of "
                  "all of them."},
    )  # fmt: skip


def compare(argv: list[str] | None = None) -> None:
    """Make the runs that are not there yet, and write `contest.json` and `contest.html`."""
    own, rest = own_and_rest(CompareArguments, "compare", sys.argv[1:] if argv is None else argv)
    plan = read_plan(rest)
    check_numbers(plan, own.seeds, own.tune)
    everybody = settle_names(plan, own.methods)
    base = plan.base
    quiet_libraries()
    silent = quietly(base.run.quiet or base.run.json)
    with silent, stages.nothing_left_behind(base), told_how_to_go_on(base, AGAIN):
        data = prepare_data(base)
        results.print_data(data)
        cost = settle_contestants(plan, everybody, data)
        _say_who(plan)
        folder = ContestFolder(Path(base.trainer.output_dir), plan, own.tune)
        course = ContestCourse.of(own, plan, folder)
        say(f"contest    {course}")
        if base.run.dry_run:
            if course.left:
                say(f"time       {cost.time(plan, data, course.left, own.tune)}")
            say(f"cost       {cost.shares(plan, data)}")
            return results.print_nothing_written(base, data)
        runs = make_runs(own, plan, folder, data, course)
        numbers = {"retrain": base.recipe.retrain, "tune": own.tune}
        contest = build_contest(runs, **numbers, passed_over=plan.passed_over, accuracy=data.task.accuracy_name)
        save(folder.folder, contest, base.run.json)


@dataclass
class ContestCourse:
    """What a contest takes, and what of it is there.

    Args:
        names: of the entries, as they run under every seed.
        before: steps under a seed before its entries.
        stored: `stored[seed][entry]`, the runs of the folder; `None` where there is none.
    """

    names: list[str]
    before: list[str]
    stored: list[dict[str, Run | None]]

    @classmethod
    def of(cls, own: CompareArguments, plan: ContestPlan, folder: ContestFolder) -> "ContestCourse":
        names = entry_names(plan.contestants(), own.tune)
        twins = plan.base.recipe.retrain + 1  # one more, as a contestant
        stored = [{name: folder.read(name, k) for name in names} for k in range(own.seeds)]
        return cls(names, ["original", *["twin"] * twins], stored)

    @property
    def missing(self) -> list[list[str]]:
        """Entries that are still to be run, by seed."""
        return [[name for name in self.names if found[name] is None] for found in self.stored]

    @property
    def total(self) -> int:
        return len(self.stored) * (len(self.before) + len(self.names))

    @property
    def left(self) -> list[str]:
        """Steps that are still to be done. A seed with a missing entry makes its original and twins, or reads them
        from the cache."""
        return [name for each in self.missing if each for name in (*self.before, *each)]

    def __str__(self) -> str:
        under = f"under each of {len(self.stored)} seeds" if len(self.stored) > 1 else "under one seed"
        entries = f"an original, {len(self.before) - 1} twins and {len(self.names)} entries"
        return f"{len(self.left)} of {self.total} steps are left: {under} {entries}"


def make_runs(
    own: CompareArguments, plan: ContestPlan, folder: ContestFolder, data: Data, course: ContestCourse
) -> dict[str, list[Run]]:
    """`runs[entry][seed]`: those of the folder, and those that were missing there. `data`: of the first seed."""
    names, stored, missing = course.names, course.stored, course.missing
    progress = ContestProgress(course.total, course.left)
    moves = plan.base.request.near_duplicates  # rows, once there is an original
    for k in range(own.seeds):
        if k and not missing[k]:
            continue
        here = data if k == 0 else prepare_data(plan.arguments(plan.names[0], k))
        if not moves:
            folder.check_rows(stored[k], k, here.describe())
        if not missing[k]:
            continue
        seed = ContestSeed(plan, k, here, own.tune, partial(progress.step, seed=k))
        seed.prepare()
        if moves:
            folder.check_rows(stored[k], k, here.describe())
        for name in missing[k]:
            run = seed.run(name, stored[k].get(name.removesuffix(TUNED)))
            stored[k][name] = folder.keep(name, k, run)
    return {name: [cast(Run, found[name]) for found in stored] for name in names}


def save(folder: Path, contest: Contest, as_json: bool) -> None:
    """Write `contest.json` and its page, and print the table or, with `--json`, the file."""
    wrong = problems(plain(contest), Contest)
    assert not wrong, wrong
    write_json(folder / CONTEST, contest)
    (folder / PAGE).write_text(contest_page(contest), encoding="utf-8")
    if as_json:
        return print(json.dumps(plain(contest), ensure_ascii=False))
    print("\n" + contest_text(contest))
    print(f"\n{CONTEST}, {PAGE} and the evidence of each run are in {folder}")


def _say_who(plan: ContestPlan) -> None:
    say(f"methods    {', '.join(plan.names)}")
    alike: dict[str, list[str]] = {}
    for name, reason in plan.passed_over.items():
        alike.setdefault(reason.removeprefix(f"method {name} "), []).append(name)
    for reason, names in alike.items():
        say(f"left out   {', '.join(names)}: {reason}")
    alone = plan.meant_for_one()
    others = [name for name in plan.names if name != plan.file_method]
    if alone and others:
        keys = ", ".join(alone)
        say(f"note       {keys} of {plan.config}: for {plan.file_method} alone; others have their defaults")
