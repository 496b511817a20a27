"""Models that draw without classes: what a row is, where they come from, which methods there are, and a whole run."""

import json

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDIMPipeline, DDIMScheduler
from toy import ROLES, image_rows, splits_of
from toy_diffusion import NETWORK, denoiser

from hf_unlearn.cli import main
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.hub.staging import stage
from hf_unlearn_diffusion.config import UnconditionalDenoiserConfig
from hf_unlearn_diffusion.draws import fixed_draws
from hf_unlearn_diffusion.esd import ESDTrainer
from hf_unlearn_diffusion.nabla_tau import DiffusionNablaTauConfig, DiffusionNablaTauTrainer
from hf_unlearn_diffusion.salun import DiffusionSalUnConfig, DiffusionSalUnTrainer
from hf_unlearn_diffusion.task import Denoisers, ImageGeneration
from hf_unlearn_diffusion.unconditional import UnconditionalDenoisers, UnconditionalImageGeneration

QUICK = {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8, "learning_rate": 1e-2}


def setup():
    torch.manual_seed(0)
    model = UnconditionalDenoisers.from_config(UnconditionalDenoiserConfig(**NETWORK), torch.float64)
    task = UnconditionalImageGeneration(UnconditionalImageGeneration.processor_for(NETWORK), {"image": "image"})
    task.prepare_model(model)
    return model, splits_of(image_rows(sum(ROLES.values())).remove_columns("label"), task), task


def test_a_score_is_the_mean_error_at_draws_of_the_image_alone():
    model, splits, task = setup()
    row = splits.retain[3]
    times, noises = fixed_draws([row["seed"]], (1, 8, 8), 1000)
    errors = []
    for time, noise in zip(times, noises.double(), strict=True):
        noised = model.scheduler.add_noise(row["pixel_values"].double()[None], noise, time)
        with torch.no_grad():
            errors.append(float((model.unet(noised, time).sample - noise).square().mean()))
    found = score(model, task, splits.retain, batch_size=7)
    assert found.loss[3] == pytest.approx(np.mean(errors), rel=1e-5) and model.unet.class_embedding is None


def test_the_ascent_goes_to_the_loss_of_unseen_images(tmp_path):
    model, splits, task = setup()
    config = DiffusionNablaTauConfig(output_dir=str(tmp_path), max_steps=3, **QUICK)
    trainer = DiffusionNablaTauTrainer(model, config, splits, task, quiet=True)
    before = score(model, task, splits.measuring).loss.mean()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    assert float(trainer.method_state["tau"].mean()) == pytest.approx(before, rel=1e-5)
    assert "the loss of unseen images, by timestep" in trainer.plan()[-1]
    assert all(not torch.equal(p, start[name]) for name, p in model.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize(
    ("method", "values", "said"),
    [
        (DiffusionSalUnTrainer, {}, "diffusion_salun changes what is said under a class or a prompt"),
        (ESDTrainer, {}, "esd changes what is said under a class or a prompt"),
        (DiffusionNablaTauTrainer, {"unseen": "other"}, "`unseen` other shows images under another class"),
    ],
)
def test_what_needs_a_class_is_refused(tmp_path, method, values, said):
    model, splits, task = setup()
    with pytest.raises(UserError, match=said):
        method(model, method.config_class(output_dir=str(tmp_path), **values, **QUICK), splits, task)


def test_there_is_nothing_to_swap_without_the_command_too(tmp_path):
    assert DiffusionSalUnConfig(output_dir=str(tmp_path)).saliency == 0.5  # the arguments alone are in order
    with pytest.raises(UserError, match="this model draws without classes"):
        setup()[2].asked_things(4, 0)
    with pytest.raises(UserError, match="`condition_dropout` leaves out classes"):
        UnconditionalDenoisers.from_config(UnconditionalDenoiserConfig(**NETWORK, condition_dropout=0.1))
    with pytest.raises(UserError, match="unet2d is no denoiser without classes; there is unet2d_unconditional"):
        UnconditionalDenoisers.from_config(denoiser().config)
    with pytest.raises(UserError, match="unet2d_unconditional is no denoiser that draws by class; there is unet2d"):
        Denoisers.from_config(UnconditionalDenoiserConfig(**NETWORK))


def test_a_folder_goes_to_the_task_that_serves_it(tmp_path):
    model, splits, task = setup()
    task.save_model(model, tmp_path / "without")
    ImageGeneration(task.processor, {}).save_model(denoiser(), tmp_path / "by_class")
    again = UnconditionalDenoisers.from_pretrained(str(tmp_path / "without"), dtype=torch.float64)
    assert np.allclose(*(score(each, task, splits.test).loss for each in (model, again)), rtol=1e-12)
    with pytest.raises(UserError, match="without classes .* it is for the task unconditional_image_generation"):
        ImageGeneration.load_config(str(tmp_path / "without"))
    with pytest.raises(UserError, match="by class .* it is for the task image_generation"):
        UnconditionalImageGeneration.load_config(str(tmp_path / "by_class"))
    assert isinstance(UnconditionalImageGeneration.load_config(str(tmp_path / "without")), UnconditionalDenoiserConfig)


@pytest.mark.slow
def test_a_run_forgets_rows_and_leaves_a_pipeline_of_diffusers(installed, tmp_path, capsys):
    original = {"model_type": "unet2d_unconditional", "model_config": NETWORK, "num_train_epochs": 1}
    run = {
        "task": "unconditional_image_generation", "method": "diffusion_nabla_tau", "forget_fraction": 0.1,
        "dataset_name": "digits", "output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache"),
        "original": original | {"learning_rate": 1e-2}, "max_steps": 2, "use_cpu": True,
        "per_device_eval_batch_size": 256,
    }  # fmt: skip
    assert main(["train", "--config", tiny.write_config(tmp_path, run)]) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    evidence = json.loads((out / "evidence.json").read_text())
    assert evidence["units"] == {"accuracy": "noise found", "loss": "MSE"}
    assert json.loads((out / "model_index.json").read_text())["_class_name"] == "DDIMPipeline"
    stage(out, tmp_path / "staged")
    assert "DDIMPipeline.from_pretrained" in (tmp_path / "staged" / "README.md").read_text()
    pipe = DDIMPipeline.from_pretrained(tmp_path / "staged")
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    drawn = pipe(batch_size=2, num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images
    assert [image.size for image in drawn] == [(8, 8)] * 2
    for change, said in (
        ({"method": "diffusion_salun"}, "--method diffusion_salun changes what is said under a class or a prompt"),
        ({"forget_fraction": None, "forget_classes": ["3"]}, "needs a task with classes"),
        ({"generate": 3}, "--generate has a classifier say which class is drawn"),
    ):
        assert main(["train", "--config", tiny.write_config(tmp_path, run | change | {"output_dir": "no"})]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
