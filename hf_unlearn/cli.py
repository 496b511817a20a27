"""`hf-unlearn demo | init | train | compare | evaluate | audit | lira | report | push | cache | env`."""

import difflib
import sys
from importlib import import_module

import hf_unlearn
from hf_unlearn.exits import leave, run_command

USAGE = """usage: hf-unlearn COMMAND [arguments]

  demo      hf-unlearn demo llm: a small chat model forgets a writer, with answers before and after
  init      a commented configuration to fill in: hf-unlearn init [text|llm|images]
  train     unlearn rows from a model and write the evidence (train --help, --help-all)
  compare   a contest of methods on the same originals and twins: hf-unlearn compare --methods nabla_tau salun …
  evaluate  the evidence for a model that was unlearned elsewhere
  audit     what a finished model remembers of given rows; nothing is unlearned
  lira      attack a method row by row with shadow models (U-LiRA)
  report    the table and the page of a finished run, or of several: hf-unlearn report FOLDER …
  push      push a finished run to the Hub: hf-unlearn push FOLDER --hub_model_id OWNER/NAME
  cache     originals and twins that are kept: list them, or remove them with --clear
  env       versions and hardware, for bug reports

`eval "$(hf-unlearn completion)"` teaches bash (zsh: after bashcompinit) the arguments; `hf-unlearn --version` says the
version; `accelerate launch -m hf_unlearn.train …` is `hf-unlearn train …` on several processes."""

COMMANDS = {  # imported when they are called
    "demo": "hf_unlearn.cli:demo",
    "init": "hf_unlearn.commands.init:init",
    "train": "hf_unlearn.train:train",
    "compare": "hf_unlearn.commands.compare:compare",
    "evaluate": "hf_unlearn.commands.evaluate:evaluate",
    "audit": "hf_unlearn.commands.audit:audit",
    "lira": "hf_unlearn.commands.lira:lira",
    "report": "hf_unlearn.commands.report:report",
    "push": "hf_unlearn.commands.push:push",
    "cache": "hf_unlearn.commands.cache:cache",
    "completion": "hf_unlearn.cli:completion",
    "env": "hf_unlearn.commands.env:env",
}
LIKE_TRAIN = ("compare", "evaluate", "audit", "lira")  # take the arguments of `train`


def demo(argv: list[str] | None = None) -> None:
    """`train` with the demo's arguments."""
    from hf_unlearn.commands.demo import demo_arguments
    from hf_unlearn.train import train

    with demo_arguments(argv) as arguments:
        train(arguments)


def completion(argv: list[str] | None = None) -> None:
    """Print the line that teaches a shell the commands and arguments: `eval "$(hf-unlearn completion)"`."""
    from dataclasses import fields

    from hf_unlearn.run.arguments import GROUPS
    from hf_unlearn.run.short_help import EVERYDAY

    names = {f.name for group in GROUPS for f in fields(group)} | {
        name for group in EVERYDAY.values() for name in group
    }
    print(f'complete -o default -W "{" ".join([*COMMANDS, *(f"--{name}" for name in sorted(names))])}" hf-unlearn')


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv[0] == "--version":
        print(f"hf_unlearn {hf_unlearn.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        close = difflib.get_close_matches(argv[0], list(COMMANDS), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"hf-unlearn: unknown command '{argv[0]}'; {hint}", file=sys.stderr)
        return 2

    def command(rest: list[str] | None) -> None:
        if argv[0] in LIKE_TRAIN:  # before its module is imported, which takes seconds
            from hf_unlearn.run.named_places import check_named_places

            check_named_places(rest)
        module, _, function = COMMANDS[argv[0]].partition(":")
        getattr(import_module(module), function)(rest)

    return run_command(command, argv[1:])


if __name__ == "__main__":
    leave(main())
