"""What one pool of shadow models says of a method, its originals and retraining: U-LiRA, RULI's games, KLoM and ε."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_unlearn.evaluation import klom, row_epsilon, ruli
from hf_unlearn.evaluation.lira import Models, u_lira
from hf_unlearn.evaluation.shadow_plan import Division

ORIGINAL, TWINS = "original", "twins"
TWIN_DEAL = 7  # names the stream of random numbers that deals rows to the twins
Arrays = Mapping[str, np.ndarray]  # φ of the audited rows `(audited,)`, by `original` and `unlearned`
Pool = Mapping[str, Sequence[tuple[Arrays, Division]]]  # of each model, by `shadow` and `target`


def verdicts(pool: Pool, method: str, seed: int) -> dict[str, Any]:
    """All figures; JSON types only, and none of them is of a single row.

    Returns:
        `memorized_rows`, how many the most memorized are; and by verdict and kind of model (`original`, the method's
        name, `twins`) `attacks` ([`u_lira`]), `ruli` (`privacy` and `efficacy`, each a [`game`](ruli.py)), `klom` and
        `epsilon` (summaries over rows, measured on the shadows).
    """
    known = {role: _models([each["original"] for each, _ in made], made) for role, made in pool.items()}
    memorized = ruli.most_memorized(known["shadow"])
    found: dict[str, Any] = {"memorized_rows": int(memorized.sum())}
    found |= {name: {} for name in ("attacks", "ruli", "klom", "epsilon")}
    for kind in (ORIGINAL, method, TWINS):
        privacy = {role: _kind(kind, made, seed, never="unlearned") for role, made in pool.items()}
        efficacy = {role: _kind(kind, made, seed, never="original") for role, made in pool.items()}
        found["attacks"][kind] = u_lira(privacy["target"], privacy["shadow"])
        found["ruli"][kind] = {
            "privacy": ruli.game(privacy["target"], privacy["shadow"], memorized),
            "efficacy": ruli.game(efficacy["target"], efficacy["shadow"], memorized),
        }
        found["klom"][kind] = klom.summary(klom.row_kloms(efficacy["shadow"], seed=seed))
        found["epsilon"][kind] = row_epsilon.summary(row_epsilon.row_epsilons(privacy["shadow"], seed=seed))
    return found


def _kind(kind: str, made: Sequence[tuple[Arrays, Division]], seed: int, never: str) -> Models:
    """One observation per model and row. `never`: which φ of a row counts that a model never saw, the one after other
    rows were unlearned or that of the `original`, which is exact retraining.

    For the twins, rows that a model never saw are dealt at random into "was in a larger data set and unlearned by
    retraining" and "never seen": a model without them is exactly that retraining.
    """
    originals = [each["original"] for each, _ in made]
    if kind == ORIGINAL:
        return _models(originals, made)
    if kind == TWINS:
        models = _models(originals, made)
        dealt = np.random.default_rng([seed, TWIN_DEAL, len(made)]).random(models.never.shape) < 0.5
        return Models(models.phi, models.never & dealt, models.never & ~dealt)
    return _models([np.where(division.member, each["unlearned"], each[never]) for each, division in made], made)


def _models(phi: Sequence[np.ndarray], made: Sequence[tuple[Arrays, Division]]) -> Models:
    member = np.stack([division.member for _, division in made])
    return Models(np.stack(phi), member, ~member)
