"""Machine unlearning for Hugging Face models. Names below are imported when they are first used."""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "FineTuneConfig": "hf_unlearn.methods.fine_tune",
    "FineTuneTrainer": "hf_unlearn.methods.fine_tune",
    "ForgetRequest": "hf_unlearn.data.request",
    "NablaTauConfig": "hf_unlearn.methods.nabla_tau",
    "NablaTauTrainer": "hf_unlearn.methods.nabla_tau",
    "Rows": "hf_unlearn.data.rows",
    "SalUnConfig": "hf_unlearn.methods.salun",
    "SalUnTrainer": "hf_unlearn.methods.salun",
    "UnlearningConfig": "hf_unlearn.trainers.config",
    "UnlearningEvalCallback": "hf_unlearn.evaluation.callback",
    "UnlearningSplits": "hf_unlearn.data.splits",
    "UnlearningResult": "hf_unlearn.api",
    "UnlearningTrainer": "hf_unlearn.trainers.base",
    "UnsirConfig": "hf_unlearn.methods.unsir",
    "UnsirTrainer": "hf_unlearn.methods.unsir",
    "get_task": "hf_unlearn.tasks",
    "unlearn": "hf_unlearn.api",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'hf_unlearn' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
