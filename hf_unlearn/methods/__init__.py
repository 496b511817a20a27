"""Methods, one file each. A new method is a new file here and a line in `METHODS`."""

import difflib
import importlib

from hf_unlearn.errors import UserError

METHODS = {
    "nabla_tau": "hf_unlearn.methods.nabla_tau:NablaTauTrainer",
    "salun": "hf_unlearn.methods.salun:SalUnTrainer",
    "unsir": "hf_unlearn.methods.unsir:UnsirTrainer",
    "fine_tune": "hf_unlearn.methods.fine_tune:FineTuneTrainer",
}


def get_method(name: str):
    """The trainer class of a method. Raises `UserError` for an unknown name."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(METHODS)}"
        raise UserError(f"unknown --method '{name}'; {hint}")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
