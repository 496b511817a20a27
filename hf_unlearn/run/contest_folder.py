"""The output folder of a contest: what it was begun with, and one file for each run, so that none is made twice."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from hf_unlearn.data.content import key_name, user_key
from hf_unlearn.errors import UserError
from hf_unlearn.report.blocks import Data
from hf_unlearn.report.contest_blocks import ContestRun
from hf_unlearn.report.evidence import EVIDENCE, validate, write_json
from hf_unlearn.report.schema import problems
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.contest_plan import ContestPlan
from hf_unlearn.run.shadow_models import NOT_SHAPING

BEGUN, FAILED = "arguments.json", "failed.json"
NOT_COMPARED = {"cache_dir", "cache_rows", "yes", "publish_request"}
Run = dict[str, Any]  # an evidence with the block `contest`, or that block alone


class ContestFolder:
    """Raises `UserError` for a folder that holds something else, or a contest with other arguments.

    Args:
        folder: may not be there yet; nothing is written before the first run is kept.
        plan: with its names settled.
        tune: rates of the search.
    """

    def __init__(self, folder: Path, plan: ContestPlan, tune: int):
        self.folder = folder
        self.begun = self._begun()
        now = _digests(plan, tune)
        if self.begun is not None:
            _check_same(folder, self.begun, now)
        self.now = {**now, "methods": {**(self.begun or now)["methods"], **now["methods"]}}
        self.now["tune"] = tune or (self.begun or now)["tune"]

    def read(self, name: str, k: int) -> Run | None:
        """What is there of an entry under seed number `k`. Raises `UserError` for a damaged file."""
        for file in (EVIDENCE, FAILED):
            path = self._place(name, k) / file
            if path.is_file():
                try:
                    run = json.loads(path.read_text(encoding="utf-8"))
                except (OSError, ValueError):
                    run = None
                if not _is_run(run, file):
                    raise UserError(f"{path} is damaged or was edited; remove it, and it is made again")
                return run
        return None

    def keep(self, name: str, k: int, run: Mapping[str, Any]) -> Run:
        """Write a run, whole or not at all, and give it as it is read again."""
        place = self._place(name, k)
        place.mkdir(parents=True, exist_ok=True)
        if self.begun != self.now:
            write_json(self.folder / BEGUN, self.now)
            self.begun = self.now
        write_json(place / (EVIDENCE if "models" in run else FAILED), run)
        return cast(Run, self.read(name, k))

    def check_rows(self, runs: Mapping[str, Run | None], k: int, data: Data) -> None:
        """Raises `UserError` where one of the runs forgot other rows than this contest's, or was divided otherwise."""
        for made in (run["data"] for run in runs.values() if run is not None and "models" in run):
            division = [(block["division"] or {}).get("digest") for block in (made, data)]
            if made["forget_digest"] != data["forget_digest"] or division[0] != division[1]:
                raise UserError(
                    f"--output_dir {self.folder} holds runs on other rows (seed_{k}): the data has changed; name a "
                    "new folder"
                )

    def _place(self, name: str, k: int) -> Path:
        return self.folder / f"seed_{k}" / name.replace(" ", "-").replace(":", "-")

    def _begun(self) -> dict[str, Any] | None:
        path = self.folder / BEGUN
        if not path.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise UserError(f"--output_dir {self.folder} is not empty and holds no contest; name a new folder")
            return None
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
            assert isinstance(begun["tune"], int) and isinstance(begun["key"], str)
            assert all(isinstance(block, dict) for block in (begun["shared"], *begun["methods"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
            raise UserError(f"{path} is damaged; name a new folder") from None
        return begun


def contest_block(run: Run) -> ContestRun:
    """The block `contest` of a run that broke down or not."""
    return run["contest"] if "models" in run else cast(ContestRun, run)


def _is_run(run: Any, file: str) -> bool:
    if not isinstance(run, dict):
        return False
    if file == FAILED:
        return not problems(run, ContestRun)
    return not validate(run) and not problems(run.get("contest"), ContestRun)


def _digests(plan: ContestPlan, tune: int) -> dict[str, Any]:
    """What shapes the contest, argument by argument, each as an HMAC under the user's key: paths and the request's
    values stand in no file. The number of seeds and who takes part may change."""
    base, methods = plan.base, {}
    shared = {
        name: value
        for group in (base.model, base.data, base.request, base.lora, base.recipe)
        for name, value in asdict(group).items()
    }
    shared |= {"generate": base.run.generate, "seed": base.trainer.seed}
    shared |= {"stress": base.run.stress_protocol} if base.run.stress else {}
    for contestant in plan.contestants():
        methods[contestant.name] = {"method": contestant.method} | _training(plan.arguments(contestant.name, 0))
    return {
        "key": key_name(),
        "tune": tune,
        "shared": {name: _digest(shared[name]) for name in sorted(shared.keys() - NOT_COMPARED)},
        "methods": {
            name: {key: _digest(value) for key, value in sorted(own.items())} for name, own in methods.items()
        },
    }


def _training(arguments: Arguments) -> dict[str, Any]:
    return {key: value for key, value in arguments.trainer.to_dict().items() if key not in NOT_SHAPING | {"seed"}}


def _digest(value: Any) -> str:
    told = json.dumps(value, sort_keys=True, default=str)
    return hmac.new(user_key(), told.encode(), hashlib.sha256).hexdigest()[:16]


def _check_same(folder: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    start = f"--output_dir {folder} holds a contest"
    mend = "give what it was begun with, or name a new folder"
    if begun["key"] != now["key"]:
        raise UserError(f"{start} that was begun under another user's key; name a new folder")
    if begun["tune"] and now["tune"] and begun["tune"] != now["tune"]:
        raise UserError(f"{start} with --tune {begun['tune']}, and this one has {now['tune']}; {mend}")
    other = _differing(begun["shared"], now["shared"])
    if other is not None:
        raise UserError(f"{start} with another --{other}; {mend}")
    for name, own in now["methods"].items():
        other = _differing(begun["methods"].get(name, own), own)
        if other is not None:
            raise UserError(f"{start} with another --{other} of {name}; {mend}")


def _differing(before: dict[str, str], now: dict[str, str]) -> str | None:
    """The first argument that differs."""
    return next((name for name in sorted({*before, *now}) if before.get(name) != now.get(name)), None)
