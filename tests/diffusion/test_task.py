"""The task: what a row is shown, what its score is, and where models come from."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from toy_diffusion import NAMES, NETWORK, denoiser, denoising_setup
from toy_latent import latent_setup

from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.methods import METHODS, get_method
from hf_unlearn.tasks import get_task
from hf_unlearn_diffusion.draws import DRAWS, fixed_draws, seed_of
from hf_unlearn_diffusion.pipeline import ClassConditionalPipeline
from hf_unlearn_diffusion.predictions import DenoisingPredictions
from hf_unlearn_diffusion.task import CORE_METHODS, ImageGeneration


def test_draws_are_a_row_s_own_and_spread_over_the_schedule():
    seeds = [seed_of(torch.full((1, 2, 2), value), label) for value, label in ((0.5, 1), (0.5, 2), (0.25, 1))]
    assert len(set(seeds)) == 3 and seed_of(torch.full((1, 2, 2), 0.5), 1) == seeds[0]
    times, noises = fixed_draws(seeds, (1, 2, 2), 1000)
    assert times.shape == (DRAWS, 3) and noises.shape == (DRAWS, 3, 1, 2, 2)
    for k in range(DRAWS):
        assert ((times[k] >= k * 125) & (times[k] < (k + 1) * 125)).all()
    alone = fixed_draws(seeds[1:2], (1, 2, 2), 1000)
    assert torch.equal(alone[0][:, 0], times[:, 1]) and torch.equal(alone[1][:, 0], noises[:, 1])
    assert abs(float(fixed_draws(list(range(200)), (1, 4, 4), 10)[1].std()) - 1) < 0.02


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_score_is_the_mean_error_at_the_row_s_own_draws(prediction_type):
    model, splits, task = denoising_setup(torch.float64, prediction_type=prediction_type)
    row = splits.retain[3]
    times, noises = fixed_draws([row["seed"]], (1, 8, 8), 1000)
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type)
    image, label, errors = row["pixel_values"].double()[None], torch.tensor([row["labels"]]), []
    for time, noise in zip(times, noises.double(), strict=True):
        with torch.no_grad():
            said = model.unet(schedule.add_noise(image, noise, time), time, class_labels=label).sample
        wanted = noise if prediction_type == "epsilon" else schedule.get_velocity(image, noise, time)
        errors.append(float(F.mse_loss(said, wanted)))
    found = score(model, task, splits.retain, batch_size=7)
    assert found.loss[3] == pytest.approx(np.mean(errors), rel=1e-5)
    assert np.allclose(np.logaddexp(0, -found.log_odds), found.loss) and found.label.tolist() == [
        splits.retain[i]["labels"] for i in range(len(splits.retain))
    ]
    again = score(model, task, splits.retain, batch_size=30)
    assert np.allclose(again.loss, found.loss, rtol=1e-9) and np.array_equal(
        found.correct, np.maximum(0, 1 - found.loss)
    )


def test_training_draws_anew_and_leaves_some_classes_out():
    model, splits, task = denoising_setup(condition_dropout=0.5)
    batch = task.collate([splits.retain[i] for i in range(30)])
    torch.manual_seed(0)
    first, second = task.predict(model, batch), task.predict(model, batch)
    assert not torch.equal(first.noised.timesteps, second.noised.timesteps) and first.size == 30
    left_out = (first.noised.conditions == model.no_condition).float().mean()
    assert 0.2 < left_out < 0.8 and torch.equal(first.labels, batch["labels"])
    head, tail = first.split(11)
    assert len(head.loss) == 11 and torch.equal(torch.cat([head.loss, tail.loss]), first.loss)
    head.loss.sum().backward()
    assert model.unet.class_embedding.weight.grad is not None
    with pytest.raises(UserError, match="how likely other labels are"):
        first.losses_for(first.labels)


def test_a_saved_model_is_a_folder_of_diffusers(tmp_path):
    model, splits, task = denoising_setup(seed=3)
    task.save_model(model, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["id2label"] == {str(i): name for i, name in enumerate(NAMES)}
    assert all((tmp_path / name).is_file() for name in task.model_files(tmp_path))
    network = UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
    assert DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler").config.beta_schedule == "squaredcos_cap_v2"
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), model.unet.parameters(), strict=True))
    again = task.auto_model().from_pretrained(str(tmp_path))
    assert again.config.id2label == dict(enumerate(NAMES)) and again.no_condition == 4
    assert np.array_equal(*(score(each, task, splits.test).loss for each in (model, again)))
    processor = ImageGeneration.load_processor(str(tmp_path))
    assert (processor.size["height"], processor.size["width"]) == (8, 8) and list(processor.image_mean) == [0.5]


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("setup", [denoising_setup, latent_setup])
def test_a_model_from_a_folder_is_trained_as_before(tmp_path, setup, share):
    """As many rows are shown without their condition: an original from the cache is the one that was made."""
    model, _, task = setup(condition_dropout=share)
    task.save_model(model, tmp_path)
    back = task.auto_model().from_pretrained(str(tmp_path))
    assert back.config.condition_dropout == share
    assert not {"training.json"} & set(task.model_files(tmp_path))  # it is not pushed


def test_a_network_alone_is_a_model_too(tmp_path):
    denoiser().unet.save_pretrained(tmp_path)
    model = get_task("hf_unlearn_diffusion.task:ImageGeneration").auto_model().from_pretrained(str(tmp_path))
    assert model.config.num_labels == 5 and model.no_condition is None and model.steps == 1000
    assert list(ImageGeneration.load_processor(str(tmp_path)).image_mean) == [0.5]


def test_images_are_drawn_by_class_and_seed(tmp_path):
    pipe = ClassConditionalPipeline(denoiser().unet, DDIMScheduler(), id2label=dict(enumerate(NAMES)))
    pipe.set_progress_bar_config(disable=True)

    def draw(classes, **more):
        options = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(0), "output_type": "pt"}
        return pipe(classes, **options, **more).images

    images = draw(["two", 0])
    assert images.shape == (2, 1, 8, 8) and torch.equal(images, draw([2, "zero"]))
    assert not torch.equal(images, draw([1, 0])) and not torch.equal(images, draw([2, 0], guidance_scale=3.0))
    assert pipe("two", num_inference_steps=2).images[0].size == (8, 8)
    for wrong in ("seven", 4, -1):
        with pytest.raises(UserError, match="draws no class"):
            draw([wrong])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_index.json": {"_class_name": "StableDiffusionPipeline"}}, "is a StableDiffusionPipeline"),
        ({"unet/config.json": {"_class_name": "UNet2DConditionModel"}}, "holds a UNet2DConditionModel"),
        ({"unet/config.json": {"num_class_embeds": None}}, "draws without classes"),
        ({"unet/config.json": {"out_channels": 2}}, "out_channels is not in_channels"),
        ({"scheduler/scheduler_config.json": {"prediction_type": "sample"}}, "prediction_type is sample"),
    ],
)
def test_a_folder_of_another_kind_is_refused_in_one_line(tmp_path, change, said):
    _, _, task = denoising_setup()
    task.save_model(denoiser(), tmp_path)
    for name, values in change.items():
        path = tmp_path / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(UserError) as refused:
        ImageGeneration.load_config(str(tmp_path))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("hf_unlearn.tasks.base.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package diffusers: pip install 'hf_unlearn\[diffusion\]'"):
        ImageGeneration.check_installed()
    assert not ImageGeneration.serves(torch.nn.Linear(1, 1))


def test_a_model_of_other_classes_or_colours_is_refused():
    _, _, task = denoising_setup()
    with pytest.raises(UserError, match="draws 2 classes and the data has 4"):
        task.check_model(denoiser(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}))
    with pytest.raises(UserError, match="draws 3 channels"):
        task.check_model(denoiser(in_channels=3))


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_read_labels_are_refused(method):
    _, _, task = denoising_setup()
    if method in CORE_METHODS:
        task.check_method(get_method(method))
        return
    with pytest.raises(UserError, match="a denoiser says nothing of that"):
        task.check_method(get_method(method))


def test_sizes_of_images_follow_the_network():
    processor = ImageGeneration.processor_for(NETWORK | {"sample_size": 16, "in_channels": 3})
    task = ImageGeneration(processor, {"image": "image", "label": "label"}, label_names=NAMES)
    rows = {"image": [np.zeros((9, 5), np.uint8), np.zeros((20, 30, 3), np.uint8)], "label": [0, 1]}
    assert task.collate(task.encode(rows, [0, 1]))["pixel_values"].shape == (2, 3, 16, 16)


def test_log_odds_of_large_errors_are_finite():
    """An ascent has no bound: e^loss overflows at 89, and log-odds would be −∞ with gradients that are no numbers."""
    said = torch.tensor([[0.001], [1.0], [9.0], [20.0]], requires_grad=True)
    found = DenoisingPredictions(said, torch.zeros(4, dtype=torch.int64), 4, wanted=torch.zeros(4, 1))
    loss = found.loss.detach().double()
    wanted = -(loss + torch.log1p(-torch.exp(-loss)))
    assert torch.allclose(found.log_odds.double(), wanted, rtol=1e-5) and loss.max() == 400
    found.log_odds.sum().backward()
    assert torch.isfinite(said.grad).all()
