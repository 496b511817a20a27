"""A recipe of which nothing is known but the base: named by the user, by the model's adapter, or by its card."""

from typing import Any

from torch import nn

from hf_unlearn.data.prepare import Prepared
from hf_unlearn.errors import UserError
from hf_unlearn.models.start import find_base, start_from
from hf_unlearn.tasks.base import Task
from hf_unlearn.tasks.forward import unwrap
from hf_unlearn.trainers.config import KnownRecipe

FOUND = "The base was not given: it is the one that the model's adapter or card names."
UNUSED = "The base that the model's adapter or card names could not be used; targets are made without it."


def recipe_for(
    rows: Prepared, model: nn.Module, base: str | nn.Module | None, recipe: KnownRecipe | None
) -> KnownRecipe | None:
    """What is known of how a `model` that is there was made: all of it, where a `recipe` is given, or its base, as
    [`known_base`] has it; its notes go to those of the `rows`.

    Raises `UserError` for both at once, and for a base that cannot be used.
    """
    if recipe is None:
        recipe, notes = known_base(rows.task, model, base, unwrap(model).config._name_or_path)
        rows.report.notes += notes
    elif base is not None:
        raise UserError("base= and recipe= both say how the model was made; give one of them")
    return recipe


def known_base(
    task: Task, model: nn.Module, base: str | nn.Module | None, name: str | None, **options: Any
) -> tuple[KnownRecipe | None, list[str]]:
    """What a method may know of how `model` was made, and notes for the reader of the figures.

    Args:
        base: as the user gives it; `None` looks for what the model's adapter or its card names.
        name: what the model was loaded from.
        options: for `from_pretrained` of the base.

    Raises `UserError` for a base of the user's that cannot be used; one that was only found is then left out.
    """
    if base is not None:
        return KnownRecipe(start_from(task, model, base, **options)), []
    found = find_base(model, name)
    if found is None:
        return None, []
    try:
        start = start_from(task, model, found, **options)
    except UserError:
        return None, [UNUSED]
    return KnownRecipe(start), [FOUND]
