"""`hf-unlearn train | report | env`."""

import atexit
import json
import os
import sys
from collections.abc import Callable

from hf_unlearn.errors import NonFiniteLossError, UserError

USAGE = """usage: hf-unlearn COMMAND [arguments]

  train    unlearn rows from a model and write the evidence (train --help lists every argument)
  report   print the table of a finished run: hf-unlearn report FOLDER
  env      versions and hardware, for bug reports

`accelerate launch hf_unlearn/train.py …` is `hf-unlearn train …` on several processes."""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = {"train": _train, "report": _report, "env": _env}
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


def _report(argv: list[str]) -> None:
    from pathlib import Path

    from hf_unlearn.report.evidence import validate
    from hf_unlearn.report.table import render_table

    if len(argv) != 1:
        raise UserError("report takes one folder: hf-unlearn report FOLDER")
    path = Path(argv[0]) / "evidence.json"
    try:
        evidence = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read; name the --output_dir of a finished run") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON (line {error.lineno})") from None
    missing = validate(evidence) if isinstance(evidence, dict) else ["everything"]
    if missing:
        raise UserError(f"{path} is no evidence of this version: {', '.join(missing[:3])} is missing")
    print(render_table(evidence))


def _env(argv: list[str]) -> None:
    import torch

    from hf_unlearn.report.evidence import environment

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    for name, value in environment(seed=None, device=device).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    leave(main())
