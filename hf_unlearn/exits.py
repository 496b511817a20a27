"""How a command ends: a result, one line and an exit status, and processes that leave together."""

import atexit
import os
import sys
from collections.abc import Callable

from hf_unlearn.errors import NonFiniteLossError, UserError


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
