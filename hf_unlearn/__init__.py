"""Machine unlearning for Hugging Face models. Names below are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; what is imported at run time stands in `_HOMES`
    from hf_unlearn.api import UnlearningResult as UnlearningResult
    from hf_unlearn.api import unlearn as unlearn
    from hf_unlearn.data.given import make_splits as make_splits
    from hf_unlearn.data.request import ForgetRequest as ForgetRequest
    from hf_unlearn.data.rows import Rows as Rows
    from hf_unlearn.data.splits import UnlearningSplits as UnlearningSplits
    from hf_unlearn.errors import RowError as RowError
    from hf_unlearn.errors import UserError as UserError
    from hf_unlearn.evaluation.callback import UnlearningEvalCallback as UnlearningEvalCallback
    from hf_unlearn.methods import METHODS as METHODS
    from hf_unlearn.methods.fine_tune import FineTuneConfig as FineTuneConfig
    from hf_unlearn.methods.fine_tune import FineTuneTrainer as FineTuneTrainer
    from hf_unlearn.methods.nabla_tau import NablaTauConfig as NablaTauConfig
    from hf_unlearn.methods.nabla_tau import NablaTauTrainer as NablaTauTrainer
    from hf_unlearn.methods.salun import SalUnConfig as SalUnConfig
    from hf_unlearn.methods.salun import SalUnTrainer as SalUnTrainer
    from hf_unlearn.methods.unsir import UnsirConfig as UnsirConfig
    from hf_unlearn.methods.unsir import UnsirTrainer as UnsirTrainer
    from hf_unlearn.tasks import TASKS as TASKS
    from hf_unlearn.tasks import get_task as get_task
    from hf_unlearn.tasks.base import Task as Task
    from hf_unlearn.tasks.classification import ClassificationTask as ClassificationTask
    from hf_unlearn.trainers.base import UnlearningTrainer as UnlearningTrainer
    from hf_unlearn.trainers.config import KnownRecipe as KnownRecipe
    from hf_unlearn.trainers.config import UnlearningConfig as UnlearningConfig
    from hf_unlearn.trainers.edit import EditTrainer as EditTrainer
    from hf_unlearn.trainers.forget_retain import ForgetRetainConfig as ForgetRetainConfig
    from hf_unlearn.trainers.forget_retain import ForgetRetainTrainer as ForgetRetainTrainer
    from hf_unlearn.trainers.row_target_trainer import RowTargetConfig as RowTargetConfig
    from hf_unlearn.trainers.row_target_trainer import RowTargetTrainer as RowTargetTrainer
    from hf_unlearn.trainers.schedule import Phase as Phase
    from hf_unlearn.trainers.split_output import SplitOutput as SplitOutput

__version__ = "0.2.0"

_HOMES = {
    "ClassificationTask": "hf_unlearn.tasks.classification",
    "EditTrainer": "hf_unlearn.trainers.edit",
    "FineTuneConfig": "hf_unlearn.methods.fine_tune",
    "FineTuneTrainer": "hf_unlearn.methods.fine_tune",
    "ForgetRequest": "hf_unlearn.data.request",
    "ForgetRetainConfig": "hf_unlearn.trainers.forget_retain",
    "ForgetRetainTrainer": "hf_unlearn.trainers.forget_retain",
    "get_task": "hf_unlearn.tasks",
    "KnownRecipe": "hf_unlearn.trainers.config",
    "make_splits": "hf_unlearn.data.given",
    "METHODS": "hf_unlearn.methods",
    "NablaTauConfig": "hf_unlearn.methods.nabla_tau",
    "NablaTauTrainer": "hf_unlearn.methods.nabla_tau",
    "Phase": "hf_unlearn.trainers.schedule",
    "RowError": "hf_unlearn.errors",
    "Rows": "hf_unlearn.data.rows",
    "RowTargetConfig": "hf_unlearn.trainers.row_target_trainer",
    "RowTargetTrainer": "hf_unlearn.trainers.row_target_trainer",
    "SalUnConfig": "hf_unlearn.methods.salun",
    "SalUnTrainer": "hf_unlearn.methods.salun",
    "SplitOutput": "hf_unlearn.trainers.split_output",
    "Task": "hf_unlearn.tasks.base",
    "TASKS": "hf_unlearn.tasks",
    "unlearn": "hf_unlearn.api",
    "UnlearningConfig": "hf_unlearn.trainers.config",
    "UnlearningEvalCallback": "hf_unlearn.evaluation.callback",
    "UnlearningResult": "hf_unlearn.api",
    "UnlearningSplits": "hf_unlearn.data.splits",
    "UnlearningTrainer": "hf_unlearn.trainers.base",
    "UnsirConfig": "hf_unlearn.methods.unsir",
    "UnsirTrainer": "hf_unlearn.methods.unsir",
    "UserError": "hf_unlearn.errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_unlearn' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
