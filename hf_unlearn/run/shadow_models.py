"""The models of U-LiRA: trained by the recipe, unlearned by the method, and measured. What is measured is kept."""

import copy
import gc
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hf_unlearn.data.build import training_rows
from hf_unlearn.data.content import features_digest
from hf_unlearn.errors import NonFiniteLossError, UserError
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.evaluation.shadow_plan import ROLES, ShadowPlan
from hf_unlearn.methods import get_method
from hf_unlearn.models.weights import copied
from hf_unlearn.progress import say
from hf_unlearn.run import stages
from hf_unlearn.run.arguments import Arguments
from hf_unlearn.run.loading import get_recipe, load_options
from hf_unlearn.run.recipe import Trained, device_kind
from hf_unlearn.run.recipe_cache import SHADOWS, base_identity, outside_code, processor_text, versions
from hf_unlearn.run.rows import Data

SEEDS = 100_000  # between the seeds of two roles


class ShadowMaker:
    """Makes one model after the other and keeps each one's φ = log(p/(1 − p)) of the audited rows.

    They are kept in the cache folder, never in the output folder: there they would say, row by row, what a model knew.
    A folder of its own for everything that makes them differ: rows, recipe, method, seed, plan.

    Args:
        arguments, data: of the run.
        plan: who is in which model.
        fingerprint: of all training rows.
    """

    def __init__(self, arguments: Arguments, data: Data, plan: ShadowPlan, *, fingerprint: str):
        self.arguments, self.data, self.plan = arguments, data, plan
        self.rows = training_rows(data.splits)
        self.folder = stages.cache_folder(arguments) / f"{SHADOWS}{_key(arguments, data, plan, fingerprint)}"
        self.is_main_process = int(os.environ.get("RANK", 0)) == 0
        self._made: dict[tuple[str, int], dict[str, np.ndarray]] = {}

    def is_done(self, role: str, k: int) -> bool:
        """Whether a model was measured, in this run or an earlier one."""
        return (role, k) in self._made or self._path(role, k).is_file()

    def load(self, role: str, k: int) -> dict[str, np.ndarray]:
        """φ of the audited rows, `(audited,)`, by `original` and `unlearned`.

        Raises `UserError` for a file that is damaged or of other rows.
        """
        if (role, k) in self._made:
            return self._made[role, k]
        path = self._path(role, k)
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is damaged; remove it, and the model is made again") from error
        if {len(array) for array in arrays.values()} != {len(self.plan.rows)}:
            raise UserError(f"{path} is of other rows; remove it, and the model is made again")
        return arrays

    def make(self, role: str, k: int, title: str) -> None:
        """Train model `k` of a role, unlearn each of its forget sets, and keep what φ then is: what it was, of a model
        that has none of the rows. No model is left when it returns."""
        self._keep(role, k, self._measured(role, k, title))
        gc.collect()  # trainers hold themselves in rings, and with them their models
        say(f"{title}: done")

    def _measured(self, role: str, k: int, title: str) -> dict[str, np.ndarray]:
        """φ of the audited rows, `(audited,)`, by `original` and `unlearned`."""
        division = self.plan.division(role, k)
        seed = SEEDS * ROLES.index(role) + 1 + k
        kept = self.plan.kept(division)
        rows = self.rows.select(kept)
        trained = stages.train_by_recipe(
            self.arguments, self.data, rows, self.arguments.recipe.original_seed + seed, f"{title}: training"
        )
        original = self._phi(trained.model, self.plan.rows)
        unlearned = original.copy()
        for part in range(self.plan.sets):
            looked_at = division.part == part
            forget = self.plan.rows[looked_at & division.member]
            if not len(forget):
                continue
            model = trained.model if part == self.plan.sets - 1 else copied(trained.model)
            model = self._unlearn(model, forget, np.setdiff1d(kept, forget), seed * self.plan.sets + part)
            unlearned[looked_at] = self._phi(model, self.plan.rows[looked_at])
            del model
            gc.collect()  # the next one is a copy
        return {"original": original, "unlearned": unlearned}

    def _unlearn(self, model: torch.nn.Module, forget: np.ndarray, retain: np.ndarray, seed: int) -> torch.nn.Module:
        """The method on a model of its own, by the run's arguments but for the seed, and without a trace."""
        splits = replace(self.data.splits, forget=self.rows.select(forget), retain=self.rows.select(retain))
        with tempfile.TemporaryDirectory(prefix="hf-unlearn-") as scratch:
            args = copy.copy(self.arguments.trainer)
            args.seed, args.output_dir, args.save_strategy, args.report_to = args.seed + seed, scratch, "no", []
            arguments = replace(self.arguments, trainer=args)
            data = replace(self.data, splits=splits, model=None, digest=None)
            trainer = stages.make_trainer(arguments, data, Trained(model))
            try:
                trainer.train()
            except NonFiniteLossError as error:
                raise NonFiniteLossError(f"{error} (a model of U-LiRA; those before it are kept)") from None
        return trainer.accelerator.unwrap_model(trainer.model)

    def _phi(self, model: torch.nn.Module, places: np.ndarray) -> np.ndarray:
        args = self.arguments.trainer
        rows = self.rows.select(places)
        return score(model.to(args.device), self.data.task, rows, batch_size=args.per_device_eval_batch_size).log_odds

    def _keep(self, role: str, k: int, arrays: dict[str, np.ndarray]) -> None:
        """In memory, because other processes than the first see no file; and whole or not at all on the disk."""
        self._made[role, k] = arrays
        if self.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self._path(role, k).with_suffix(".partial")
            save_file(arrays, partial)
            os.replace(partial, self._path(role, k))

    def _path(self, role: str, k: int) -> Path:
        return self.folder / f"{role}-{k:05d}.safetensors"


def _key(arguments: Arguments, data: Data, plan: ShadowPlan, fingerprint: str) -> str:
    """Hash of everything that φ depends on. The number of models is no part of it: more can be added."""
    task, args, recipe = data.task, arguments.trainer, get_recipe(arguments)
    parts = [
        asdict(recipe) | {"model": recipe.model and base_identity(recipe.model)},
        load_options(arguments),
        arguments.recipe.original_seed,
        arguments.run.method,
        {name: value for name, value in args.to_dict().items() if name not in NOT_SHAPING},
        asdict(arguments.lora),
        task.name, task.columns, task.label_names, processor_text(task.processor),
        fingerprint, features_digest(data.splits.validation),
        type(plan).__name__, plan.audited.tolist(), plan.unit.tolist(), plan.sets, plan.seed,
        versions({"use_peft": recipe.use_peft or arguments.lora.use_peft}, task),
        os.environ.get("WORLD_SIZE", "1"),
        device_kind(args.use_cpu),
    ]  # fmt: skip
    if code := outside_code(type(task), get_method(arguments.run.method)):
        parts.append(code)
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


NOT_SHAPING = {
    "output_dir", "logging_dir", "run_name", "report_to", "resume_from_checkpoint", "disable_tqdm", "log_level",
    "logging_steps", "logging_strategy", "save_strategy", "save_steps", "save_total_limit", "eval_strategy",
    "per_device_eval_batch_size", "dataloader_num_workers", "hub_model_id", "hub_token", "push_to_hub",
}  # fmt: skip
