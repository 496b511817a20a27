"""Fine-tuning on the retain rows: the simplest baseline."""

from dataclasses import dataclass

from hf_unlearn.trainers.config import UnlearningConfig
from hf_unlearn.trainers.retain_only import RetainOnlyTrainer


@dataclass
class FineTuneConfig(UnlearningConfig):
    """Nothing beyond the common arguments."""


class FineTuneTrainer(RetainOnlyTrainer):
    """L = L_r: plain descent on the retain rows, never reading a forget row. Relies on catastrophic forgetting."""

    config_class = FineTuneConfig
    method = "fine_tune"
