"""Who takes part in a contest, and with which arguments: one method on one seed is one command line of `train`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn.exits import nearest
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.checks import check
from hf_unlearn.run.config_file import read_config
from hf_unlearn.run.line_parser import LineParser
from hf_unlearn.run.parsing import parse_arguments

BLOCK = "method_arguments"  # of the file: a block for each contestant
ALL, BASELINE = "all", "fine_tune"
STRIDE = 1000  # between the original's seeds of two seeds of the contest: room for its twins
NAME = re.compile(r"[A-Za-z_][\w.:]*")
NOT_HERE = {
    "resume_from_checkpoint": "compare goes on by itself where it was stopped",
    "push_to_hub": "compare leaves no model that could be pushed",
    "saliency_mask": "a mask was measured on one model, and every seed has another",
    "reference_model": "compare retrains its twins by the recipe, under every seed",
}
_OF_THE_CONTEST = {"output_dir", "seed", "report_to", "use_cpu", "per_device_eval_batch_size", *NOT_HERE}


@dataclass
class Contestant:
    """A method under a name: its own, or that of a block which says `method`."""

    name: str
    method: str


@dataclass
class ContestPlan:
    """The command line and the file behind a contest.

    What the file says of training (rates, epochs, batches, a method's own arguments) is meant for its `method` and
    holds for that one alone; `method_arguments` has a block for each of the others. The command line holds for all.

    Args:
        argv: the arguments of `train`, without the contest's own.
        config: the file's name.
        values: what it says, without `blocks`.
        names: of the contestants, in their order.
        passed_over: why a method of `all` does not take part.
    """

    argv: list[str]
    config: str | None
    values: dict[str, Any]
    blocks: dict[str, dict[str, Any]]
    names: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)

    @cached_property
    def base(self) -> Arguments:
        """Those that hold for all: model, rows, request, recipe; not checked yet."""
        return self._parsed(BASELINE, 0)

    def contestant(self, name: str) -> Contestant:
        """Raises `UserError` for an unknown method."""
        from hf_unlearn.methods import get_method

        method = str(self.blocks.get(name, {}).get("method", name))
        get_method(method)
        return Contestant(name, method)

    def contestants(self) -> list[Contestant]:
        """All of them."""
        return [self.contestant(name) for name in self.names]

    def arguments(self, name: str, k: int) -> Arguments:
        """Of a contestant under seed number `k`, as `train` would have them: `--seed` k higher, `--original_seed`
        1,000 · k higher. Raises `UserError` as `parse_arguments` and `check` do."""
        arguments = self._parsed(name, k)
        check(arguments, goes_on=True)
        return arguments

    def _parsed(self, name: str, k: int) -> Arguments:
        method = self.contestant(name).method
        own = {key: value for key, value in self.blocks.get(name, {}).items() if key != "method"}
        values = {**self._for_all(name), **own, "method": method}
        try:
            arguments = parse_arguments(self.argv, values=values)
        except UserError as error:
            if not str(error).startswith("unknown argument"):
                raise
            raise UserError(
                f"{error} (of method {name}); arguments of one method stand in the file, under {BLOCK}"
            ) from None
        arguments.trainer.seed += k
        arguments.recipe.original_seed += STRIDE * k
        for option, reason in NOT_HERE.items():
            group = arguments.recipe if option == "reference_model" else arguments.trainer
            if getattr(group, option, None):
                raise UserError(f"--{option}: {reason}; leave it out")
        return arguments

    def meant_for_one(self) -> list[str]:
        """Keys of the file that hold for its own method alone."""
        return sorted(self.values.keys() & self._method_fields())

    @property
    def file_method(self) -> str:
        """The one that the file is written for."""
        return str(self.values.get("method") or "nabla_tau")

    def _for_all(self, name: str) -> dict[str, Any]:
        if name == self.file_method:
            return dict(self.values)
        own = self._method_fields()
        return {key: value for key, value in self.values.items() if key not in own}

    def _method_fields(self) -> set[str]:
        from hf_unlearn.methods import get_method

        return get_method(self.file_method).config_class.method_fields()


def read_plan(argv: list[str]) -> ContestPlan:
    """The file and the command line; who takes part is settled later.

    Raises `UserError` for a file that cannot be read, and for blocks that make no sense.
    """
    parser = LineParser(add_help=False, allow_abbrev=False)
    for name in ("config", "method", "method_arguments"):
        parser.add_argument(f"--{name}")
    early, _ = parser.parse_known_args(argv)
    if early.method is not None:
        raise UserError("--method is for train; compare takes --methods, one or several")
    if early.method_arguments is not None:
        raise UserError(f"--{BLOCK} is a block of the file; write it there")
    values = read_config(early.config) if early.config else {}
    blocks = values.pop(BLOCK, None) or {}
    plan = ContestPlan(argv, early.config, values, dict(_checked(blocks, str(early.config))))
    plan.base  # noqa: B018 - what is wrong for everybody is said before any contestant is named
    return plan


def _checked(blocks: Any, config: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The blocks of `method_arguments`. Raises `UserError` for what is no block, and unknown keys."""
    from hf_unlearn.methods import get_method

    if not isinstance(blocks, Mapping):
        raise UserError(f"{config}: '{BLOCK}' must hold a block of keys for each method")
    for name, block in blocks.items():
        if not isinstance(block, Mapping) or not NAME.fullmatch(str(name)):
            raise UserError(f"{config}: '{name}' in '{BLOCK}' must be a name with a block of keys")
        known = get_method(str(block.get("method", name))).config_class
        keys = {f.name for f in fields(known) if f.init} - _OF_THE_CONTEST | {"method"}
        for key in block:
            if key not in keys:
                hint = "; it holds for all" if key in _OF_THE_CONTEST else nearest(str(key), keys)
                raise UserError(f"{config}: '{name}' in '{BLOCK}' cannot have '{key}'{hint}")
        yield str(name), dict(block)


def settle_names(plan: ContestPlan, asked: list[str] | None) -> bool:
    """Fill in who takes part, the baseline first. Returns whether all do that can. Raises `UserError` for unknown
    names, or none."""
    from hf_unlearn.methods import method_names

    if not asked:
        raise UserError("no --methods; name some, as nabla_tau salun npo, or all")
    everybody = ALL in asked
    if everybody and len(asked) > 1:
        raise UserError("--methods all takes everybody in; name methods, or all")
    names = [*method_names(), *plan.blocks] if everybody else asked
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(f"--methods {name} is no name of a method")
        plan.contestant(name)
    plan.names = list(dict.fromkeys([BASELINE, *names]))
    return everybody
