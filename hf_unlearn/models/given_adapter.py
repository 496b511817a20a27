"""An adapter's weights as they come from a folder or the Hub: whole, and made for the base they are put on."""

import os
import re
import warnings
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_unlearn.errors import UserError
from hf_unlearn.models.weights import check_finite
from hf_unlearn.tasks.forward import without_wrappers

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

FILES = ("adapter_model.safetensors", "adapter_model.bin")
OTHER_SHAPE = re.compile(r"size mismatch for (\S+?):")


def put_on(base: "PreTrainedModel", where: str, config: "PeftConfig", name: str, **hub: Any) -> "PeftModel":
    """`PeftModel.from_pretrained`, trainable, under the adapter's name `name`; what the folder `where` lacks is no
    adapter.

    Raises `UserError` naming what does not fit, is missing or is not finite.
    """
    from peft import PeftModel

    if os.path.isdir(where) and not any(os.path.isfile(os.path.join(where, file)) for file in FILES):
        raise UserError(f"the adapter at {where} has no weights ({FILES[0]}): save the whole adapter")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")  # peft fills them with fresh ones
            model = PeftModel.from_pretrained(base, where, adapter_name=name, is_trainable=True, **hub)
    except UserWarning as error:
        raise _lacks(where, str(error).partition("'")[2].partition("'")[0]) from error
    except KeyError as error:  # of a layer that was trained whole
        raise _lacks(where, str(error.args[0])) from error
    except (RuntimeError, ValueError) as error:
        why = _what_differs(str(error), config)
        raise UserError(f"the adapter at {where} does not fit {config.base_model_name_or_path}: {why}") from error
    check_finite(model, where)
    return model


def check_active(model: nn.Module, *names: str) -> None:
    """Raises `UserError` for a `PeftModel` with another adapter at work than one of these, or with several: what is
    not called so would be left out of what is saved."""
    inner: Any = without_wrappers(model)
    active = list(getattr(inner, "active_adapters", ())) if hasattr(inner, "get_base_model") else []
    if active and (len(active) > 1 or active[0] not in names):
        found = " and ".join(map(repr, active))
        raise UserError(
            f"the model works with the adapter {found}, and one that unlearns is called {names[0]!r}: merge others "
            f"into the base first, or load it with adapter_name={names[0]!r}"
        )


def _lacks(where: str, key: str) -> UserError:
    short = key.removeprefix("base_model.model.")
    return UserError(
        f"the adapter at {where} lacks weights that its configuration asks for, e.g. {short}: save it whole"
    )


def _what_differs(told: str, config: "PeftConfig") -> str:
    """From what peft says: a head of other classes, a weight of another shape, or another architecture."""
    keys = OTHER_SHAPE.findall(told)
    whole = getattr(config, "modules_to_save", None) or []
    if not keys:
        return "it was made for another model"
    if all("lora_" not in key and any(f".{head}." in key for head in whole) for key in keys):
        return "its head has other classes"
    return f"{keys[0].removeprefix('base_model.model.')} has another shape there"
