"""Latent text-to-image models: prompts, what is trained, folders of both layouts, SalUn, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from toy import outputs
from toy_latent import NAMES, PARTS, SECOND, latent_denoiser, latent_setup

from hf_unlearn.cli import main
from hf_unlearn.errors import RowError, UserError
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.hub.staging import stage
from hf_unlearn.models import lora
from hf_unlearn.run.recipe import Recipe, train_recipe
from hf_unlearn.run.recipe_cache import base_identity
from hf_unlearn.trainers.config import default_learning_rate
from hf_unlearn_diffusion.draws import DRAWS
from hf_unlearn_diffusion.latent_config import LatentDenoiserConfig
from hf_unlearn_diffusion.nabla_tau import DiffusionNablaTauTrainer
from hf_unlearn_diffusion.predictions import Noised
from hf_unlearn_diffusion.salun import DiffusionSalUnTrainer
from hf_unlearn_diffusion.task import ImageGeneration
from hf_unlearn_diffusion.text_to_image import TextToImage

QUICK = {"learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8}
CONFIGS = Path(__file__).parents[2] / "configs"
FRESH = """
import sys, torch, numpy
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
numpy.save(sys.argv[2], pipe(["a drawn 4", "a drawn 5"], generator=torch.Generator().manual_seed(0),
                             num_inference_steps=3, output_type="np").images)
"""


def make(folder, trainer=DiffusionSalUnTrainer, adapter=False, gone=(), **more):
    model, splits, task = latent_setup(torch.float64)
    splits.forgotten_classes = gone
    if adapter:
        model = lora.add_lora(model, r=2, alpha=4, dropout=0.0, task_type=task.peft_task_type)
    args = trainer.config_class(output_dir=str(folder), **QUICK | {"max_steps": 2} | more)
    return trainer(model, args, splits, task, quiet=True)


def test_a_row_s_prompt_is_its_concept_s_or_its_own():
    _, splits, task = latent_setup()
    row, again = splits.retain[0], splits.retain[0]
    assert row["input_ids"].tolist() == task.processor.tokens([f"a drawn {NAMES[row['labels']]}"])[0].tolist()
    assert torch.equal(row["input_ids"], again["input_ids"]) and row["input_ids"].shape == (20,)
    columns = TextToImage.detect_columns(["image", "label", "caption"], None, {})
    assert columns == {"image": "image", "label": "label", "caption": "caption"}
    assert TextToImage.detect_columns(["image", "prompt"], None, {}) == {"image": "image", "label": "prompt"}
    own = TextToImage(task.processor, columns, NAMES)
    images = [np.zeros((9, 5), np.uint8), np.zeros((20, 30), np.uint8)]  # of different sizes
    rows = {"image": images, "label": [0, 1], "caption": ["nobody's nought", "a one"]}
    batch = own.collate(own.encode(rows, [0, 1]))
    assert batch["pixel_values"].shape == (2, 1, 8, 8)
    assert torch.equal(batch["input_ids"], task.processor.tokens(["nobody's nought", "a one"]))
    with pytest.raises(RowError, match="it has no caption"):
        own.encode(rows | {"caption": ["a nought", " "]}, [0, 1])


def test_from_scratch_all_parts_learn_and_unlearning_moves_the_network_alone(tmp_path):
    model, splits, task = latent_setup()
    model.train()
    model(**task.collate([splits.retain[i] for i in range(8)])).loss.backward()
    assert all(any(p.grad is not None for p in part.parameters()) for part in (model.vae, model.text_encoder))
    assert model.eval().further_loss(splits.retain[0]["pixel_values"][None]) is None
    trainer = make(tmp_path, saliency=0.5, max_steps=3)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    masks = trainer.lens.mask.masks
    assert all(name.startswith("unet.") for name in masks)
    moved = {name: p != start[name] for name, p in trainer.model.named_parameters()}
    assert sum(int(m.sum()) for m in moved.values()) > 100
    assert not any((m & ~masks[name]).any() if name in masks else m.any() for name, m in moved.items())


def test_an_original_from_the_cache_knows_the_empty_prompt(tmp_path):
    _, splits, task = latent_setup()
    kind = {"model_type": "latent_text_to_image", "model_config": json.dumps(PARTS)}
    recipe = Recipe(**kind, num_train_epochs=1, learning_rate=1e-3, batch_size=8)
    made = [train_recipe(recipe, task, splits.retain, 0, cache_dir=tmp_path, use_cpu=True) for _ in range(2)]
    assert [each.cached for each in made] == [False, True]
    empty = task.processor.tokens([""])[0]
    assert all(torch.equal(each.model.no_condition, empty) for each in made)


def test_lora_is_on_the_network_s_attention_alone(tmp_path):
    trainer = make(tmp_path, adapter=True, saliency=1.0)
    trainer.train()
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained and all(".unet." in name and "lora_" in name and ".attn" in name for name in trained)


def test_salun_pulls_to_another_prompt(tmp_path):
    for said in (None, "a drawn cat"):
        trainer = make(tmp_path, gone=(1,), other_prompt=said, per_device_forget_batch_size=8)
        trainer.model.config.condition_dropout = 0.5
        torch.manual_seed(0)
        forget = outputs(trainer)["forget"]
        shown, labels, task = forget.predictions.noised, forget.predictions.labels.tolist(), trainer.task
        empty = (shown.conditions == task.processor.tokens([""])).all(1)
        assert 0 < empty.sum() < len(empty)
        names = [said or f"a drawn {NAMES[{0: 2, 1: 2, 2: 3, 3: 0}[c]]}" for c in labels]
        prompts = task.processor.tokens(["" if e else n for e, n in zip(empty, names, strict=True)])
        with torch.no_grad():
            words = trainer.model.text_encoder(prompts).last_hidden_state
            other = trainer.model.unet(shown.images, shown.timesteps, encoder_hidden_states=words).sample
            own = trainer.model.denoise(shown)
        by_hand = (own - other).square().flatten(1).mean(1)
        assert torch.allclose(trainer.forget_losses(forget), by_hand, rtol=1e-9) and (by_hand[~empty] > 0).all()


def test_tau_under_another_prompt(tmp_path):
    trainer = make(tmp_path, DiffusionNablaTauTrainer, gone=(1,))
    tau = trainer.prepare()["tau"]
    model, rows, task = trainer.model, trainer.splits.measuring, trainer.task
    batch = task.collate([rows[i] for i in range(len(rows))])
    with torch.no_grad():
        said = task.predict(model, batch)
        ids = task.conditions_of((said.labels + 1) % 4)
        answer = model.denoise(Noised(said.noised.images, said.noised.timesteps, ids)).flatten(1)
    errors = (answer - said.wanted).square().mean(1).view(-1, DRAWS)
    assert torch.allclose(tau.double(), errors.mean(0).double(), rtol=1e-5)


@pytest.mark.parametrize("values", [{}, SECOND], ids=["1.x", "2.x"])
def test_a_saved_model_is_a_pipeline_of_diffusers(tmp_path, values):
    model, splits, task = latent_setup(seed=3, **values)
    task.save_model(model, tmp_path)
    assert all((tmp_path / name).is_file() for name in task.model_files(tmp_path))
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline" and index["safety_checker"] == [None, None]
    again = task.auto_model().from_pretrained(str(tmp_path))
    own = TextToImage(
        TextToImage.load_processor(str(tmp_path)), task.columns, NAMES, prompt_template="a drawn {label}"
    )
    own.prepare_model(again)
    assert {name.split(".")[0] for name, p in again.named_parameters() if p.requires_grad} == {"unet"}
    found = [score(each, of, splits.test).loss for each, of in ((model, task), (again, own))]
    assert np.allclose(*found, rtol=1e-6)  # weights read from a file lie otherwise in memory, and sums round otherwise
    before = base_identity(str(tmp_path))
    with open(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", "ab") as file:
        file.write(b"0")
    assert base_identity(str(tmp_path)) != before


def run_config(folder: Path, **more) -> dict:
    original = {"model_type": "latent_text_to_image", "model_config": PARTS, "num_train_epochs": 1}
    given = {
        "task": "text_to_image", "method": "diffusion_salun", "forget_classes": ["3"], "dataset_name": "digits",
        "prompt_template": "a drawn {label}", "output_dir": str(folder / "out"), "cache_dir": str(folder / "cache"),
        "original": original, "retrain": 0, "max_steps": 2, "use_cpu": True, "per_device_eval_batch_size": 256,
    }  # fmt: skip
    return given | more


@pytest.mark.slow
def test_what_is_pushed_draws_the_same_and_is_the_next_model(installed, tmp_path, capsys):
    run = run_config(tmp_path, generate=2)
    assert main(["train", "--config", tiny.write_config(tmp_path, run)]) == 0, capsys.readouterr().err
    assert "drawn as a forgotten class (%)" in capsys.readouterr().out
    out, staged = tmp_path / "out", tmp_path / "staged"
    names = stage(out, staged)
    assert {"vae/config.json", "tokenizer/tokenizer.json", "plots/drawn.png", "unet/config.json"} <= set(names)
    card = (staged / "README.md").read_text()
    assert "StableDiffusionPipeline.from_pretrained" in card and "pipeline_tag: text-to-image" in card
    assert "drawn 3" not in "".join(p.read_text() for p in staged.rglob("*") if p.suffix in (".json", ".md", ".html"))
    found = [tmp_path / "here.npy", tmp_path / "there.npy"]
    sys.argv = ["-", str(out), str(found[0])]
    exec(FRESH, {"__name__": "here"})
    subprocess.run(
        [sys.executable, "-c", FRESH, str(staged), str(found[1])], check=True, capture_output=True, timeout=300
    )
    here, there = (np.load(path) for path in found)
    assert here.shape == (2, 8, 8, 1) and np.array_equal(here, there) and not np.array_equal(here[0], here[1])
    # A pipeline's folder is a model for the recipe of the Hub's, whatever its version.
    argv = ["train", "--config", str(CONFIGS / "hub_sd_salun.yaml"), "--model_name_or_path", str(out), "--dry_run",
            "--dataset_name", "digits", "--forget_classes", "3", "--output_dir", str(tmp_path / "again")]  # fmt: skip
    assert main([*argv, "--use_cpu", "true"]) == 0, capsys.readouterr().err
    screen = capsys.readouterr().out
    assert "LatentDenoiser" in screen and "600 steps" in screen
    # Without `--task` a line says which to name.
    argv = ["train", "--method", "salun", "--model_name_or_path", str(out), "--dataset_name", "digits"]
    assert main([*argv, "--forget_classes", "3", "--output_dir", str(tmp_path / "again")]) == 2
    assert (
        "say --task image_generation (drawn by class), unconditional_image_generation or text_to_image"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt_template": "a drawing"}, "has no {label} in it"),
        ({"original": {"model_type": "vit"}}, "no model that draws from prompts"),
        (
            {"original": {"model_type": "latent_text_to_image", "model_config": PARTS | {"vae": {"layers": 2}}}},
            "cannot be loaded: AutoencoderKL.__init__() got an unexpected keyword argument 'layers'",
        ),
        ({"other_prompt": "a cat", "task": "image_generation"}, "--other_prompt is for models that read prompts"),
        ({"variant": "paper"}, "--variant paper has the steps of a DDPM"),
        ({"caption_column": "words"}, "words"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(installed, tmp_path, capsys, change, said):
    given = run_config(tmp_path) | change
    if given["task"] == "image_generation":
        from toy_diffusion import NETWORK

        given.pop("prompt_template")
        given["original"] = {"model_type": "unet2d", "model_config": NETWORK}
    assert main(["train", "--config", tiny.write_config(tmp_path, given)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert said in line and not (tmp_path / "out").exists(), line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"_class_name": "KandinskyPipeline"},
            "is a KandinskyPipeline; text_to_image takes a StableDiffusionPipeline",
        ),
        ({"_class_name": "ClassConditionalPipeline"}, "models that draw by class are the task image_generation"),
        ({"vae": [None, None]}, "has no vae: save the whole pipeline"),
        ({"tokenizer": "gone"}, "has no tokenizer: save the whole pipeline"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "the text_encoder of"),
    ],
)
def test_a_folder_of_another_kind_is_refused_in_one_line(tmp_path, change, said):
    _, _, task = latent_setup()
    task.save_model(latent_denoiser(), tmp_path)
    for part in [part for part, value in change.items() if value == "gone"]:
        (tmp_path / part).rename(tmp_path / "elsewhere")
    path = tmp_path / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {k: v for k, v in change.items() if v != "gone"}))
    with pytest.raises(UserError) as refused:
        TextToImage.load_processor(str(tmp_path))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    if change.get("_class_name") is None:
        with pytest.raises(UserError, match="it is for the task text_to_image"):
            ImageGeneration.load_config(str(tmp_path))


def test_the_default_rate_goes_by_the_width_of_the_network():
    widths = {"block_out_channels": [8, 16]}
    model = latent_denoiser(unet=PARTS["unet"] | widths)
    assert default_learning_rate(model) == pytest.approx(0.032 / 16)
    assert max(LatentDenoiserConfig().hidden_sizes) == 1280  # of a UNet2DConditionModel that is told nothing
    assert "hidden_sizes" not in model.config.to_dict()
