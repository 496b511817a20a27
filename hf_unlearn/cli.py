"""`hf-unlearn init | train | evaluate | lira | report | push | cache | env`."""

import sys
from importlib import import_module

import hf_unlearn
from hf_unlearn.exits import leave, run_command

USAGE = """usage: hf-unlearn COMMAND [arguments]

  init      a commented configuration to fill in: hf-unlearn init [text|llm|images]
  train     unlearn rows from a model and write the evidence (train --help lists every argument)
  evaluate  the evidence for a model that was unlearned elsewhere
  lira      attack a method row by row with shadow models (U-LiRA)
  report    the table and the page of a finished run, or of several: hf-unlearn report FOLDER …
  push      push a finished run to the Hub: hf-unlearn push FOLDER --hub_model_id OWNER/NAME
  cache     originals and twins that are kept: list them, or remove them with --clear
  env       versions and hardware, for bug reports

`hf-unlearn --version` says the version; `accelerate launch -m hf_unlearn.train …` is `hf-unlearn train …` on several
processes."""

COMMANDS = {  # imported when they are called
    "init": "hf_unlearn.commands.init:init",
    "train": "hf_unlearn.train:train",
    "evaluate": "hf_unlearn.commands.evaluate:evaluate",
    "lira": "hf_unlearn.commands.lira:lira",
    "report": "hf_unlearn.commands.report:report",
    "push": "hf_unlearn.commands.push:push",
    "cache": "hf_unlearn.commands.cache:cache",
    "env": "hf_unlearn.commands.env:env",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv[0] == "--version":
        print(f"hf_unlearn {hf_unlearn.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"hf-unlearn: unknown command '{argv[0]}'; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2

    def command(rest: list[str] | None) -> None:
        module, _, function = COMMANDS[argv[0]].partition(":")
        getattr(import_module(module), function)(rest)

    return run_command(command, argv[1:])


if __name__ == "__main__":
    leave(main())
