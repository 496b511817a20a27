"""`hf-unlearn train | evaluate | lira | report | push | env`."""

import argparse
import atexit
import os
import sys
from collections.abc import Callable

from hf_unlearn.errors import NonFiniteLossError, UserError

USAGE = """usage: hf-unlearn COMMAND [arguments]

  train     unlearn rows from a model and write the evidence (train --help lists every argument)
  evaluate  the evidence for a model that was unlearned elsewhere
  lira      attack a method row by row with shadow models (U-LiRA)
  report    the table and the page of a finished run, or of several: hf-unlearn report FOLDER …
  push      push a finished run to the Hub: hf-unlearn push FOLDER --hub_model_id OWNER/NAME
  env       versions and hardware, for bug reports

`accelerate launch hf_unlearn/train.py …` is `hf-unlearn train …` on several processes."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(" ".join(message.split()))


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = {
        "train": _train,
        "evaluate": _evaluate,
        "lira": _lira,
        "report": _report,
        "push": _push,
        "env": _env,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv[0] not in commands:
        print(f"hf-unlearn: unknown command '{argv[0]}'; there are {', '.join(commands)}", file=sys.stderr)
        return 2
    return run_command(commands[argv[0]], argv[1:])


def run_command(command: Callable[[list[str] | None], None], argv: list[str] | None) -> int:
    """Run a command and turn the two expected ends into one line on stderr: exit status 2 for a mistake in the input,
    1 for a run that broke down."""
    try:
        command(argv)
    except UserError as error:
        return _fail(str(error), 2)
    except NonFiniteLossError as error:
        return _fail(str(error), 1)
    return 0


def leave(status: int) -> None:
    """End the process. One of several ends without tearing the interpreter down: torch's threads now and then abort in
    that, and the launcher would call a finished run failed. What others have left to do at exit is done first."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _fail(message: str, status: int) -> int:
    # Under a launcher every process ends here; one of them speaks.
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"hf-unlearn: {' '.join(message.split())}", file=sys.stderr)
    return status


def _train(argv: list[str]) -> None:
    from hf_unlearn.train import train

    train(argv)


def _evaluate(argv: list[str]) -> None:
    from hf_unlearn.evaluation_run import evaluate

    evaluate(argv)


def _lira(argv: list[str]) -> None:
    from hf_unlearn.lira_run import lira

    lira(argv)


def _report(argv: list[str]) -> None:
    from hf_unlearn.report.command import report_command

    parser = _Parser(prog="hf-unlearn report", description="The table and the page of one finished run, or several.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="--output_dir of a finished run")
    parser.add_argument("--output", help="where the page goes (default: report.html in the folder of a single run)")
    given = parser.parse_args(argv)
    report_command(given.folders, given.output)


def _push(argv: list[str]) -> None:
    from hf_unlearn.hub import push_command

    push_command(argv)


def _env(argv: list[str]) -> None:
    import torch

    from hf_unlearn.report.evidence import environment

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    for name, value in environment(seed=None, device=device).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    leave(main())
