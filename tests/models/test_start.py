"""What a model was before its training: by name, by folder, as a model, or as its adapter or card names it."""

import json

import pytest
import torch
from toy import image_rows, image_setup, lm_setup, text_setup, vit

from hf_unlearn import unlearn
from hf_unlearn.errors import UserError
from hf_unlearn.methods.nabla_tau import NablaTauConfig, NablaTauTrainer
from hf_unlearn.models.start import find_base, start_from
from hf_unlearn.trainers.config import KnownRecipe
from hf_unlearn.trainers.known_base import FOUND, UNUSED, known_base


def backbone_equal(first, second) -> bool:
    theirs = second.base_model.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.base_model.state_dict().items())


def test_a_classifiers_start_is_its_base_with_a_head_from_the_seed(tmp_path):
    original, _, task = text_setup()
    base = text_setup()[0].base_model
    with torch.no_grad():
        next(base.parameters()).add_(1.0)
    base.save_pretrained(tmp_path / "base")
    for given in (str(tmp_path / "base"), base):
        start = start_from(task, original, given)
        first, again, other = start(0), start(0), start(1)
        assert backbone_equal(first, type(original)(original.config).from_pretrained(tmp_path / "base", num_labels=4))
        assert torch.equal(first.classifier.weight, again.classifier.weight)
        assert not torch.equal(first.classifier.weight, other.classifier.weight)
        assert first.config.num_labels == 4 and first.config._name_or_path


def test_a_language_models_start_is_its_base():
    original, _, task = lm_setup()
    base = lm_setup()[0]
    with torch.no_grad():
        base.lm_head.weight.add_(1.0)
    assert torch.equal(start_from(task, original, base)(0).lm_head.weight, base.lm_head.weight)


def test_what_does_not_fit_is_refused(tmp_path):
    original, _, task = text_setup()
    for given, said in (("nowhere", "cannot be loaded"), (vit(), "lacks the model's"), (lm_setup()[0], "lacks")):
        with pytest.raises(UserError, match=said):
            start_from(task, original, given)
    vit().save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="has a ViTConfig, and the model a BertConfig"):
        start_from(task, original, str(tmp_path / "vit"))


def test_adapters_and_cards_name_their_base(tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _, task = text_setup()
    model.base_model.save_pretrained(tmp_path / "base")
    model.config._name_or_path = str(tmp_path / "base")
    adapted = get_peft_model(text_setup()[0], LoraConfig(r=2, target_modules=["query"]))
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    assert find_base(adapted, None) == str(tmp_path / "base")
    assert backbone_equal(known_base(task, adapted, None, None)[0].start(0), model)
    own = tmp_path / "own"
    own.mkdir()
    assert find_base(model, str(own)) is None
    for card, expected in (("base_model: a/b", "a/b"), ("base_model: [a/b, c/d]", None), ("license: mit", None),
                           ("base_model: a/b\ntags: [unlearning]", None)):  # fmt: skip
        (own / "README.md").write_text(f"---\n{card}\n---\nText.")
        assert find_base(model, str(own)) == expected
    (own / "README.md").write_text(f"---\nbase_model: {tmp_path / 'base'}\n---\n")
    recipe, notes = known_base(task, model, None, str(own))
    assert notes == [FOUND] and backbone_equal(recipe.start(0), model) and recipe.epochs is None
    (own / "README.md").write_text("---\nbase_model: no/where\n---\n")
    assert known_base(task, model, None, str(own)) == (None, [UNUSED])
    (own / "README.md").unlink()
    (own / "config.json").write_text(json.dumps({"_name_or_path": "c/d"}))
    assert find_base(model, str(own)) == "c/d" and find_base(model, "no/where") is None
    (own / "evidence.json").write_text(json.dumps({}))
    assert known_base(task, model, None, str(own)) == (None, [])


def test_unlearn_takes_a_base():
    model, _, task = image_setup()
    model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
    rows = {"train": image_rows(40), "test": image_rows(24, seed=1)}
    options = {"max_steps": 1, "proxy_epochs": 0.2, "use_cpu": True, "disable_tqdm": True, "forget": [1, 2]}
    result = unlearn(model, task.processor, rows, base=vit(seed=3), **options)
    assert backbone_equal(result.trainer.recipe.start(0), vit(seed=3))


def test_a_trainer_made_by_hand_takes_a_base_as_unlearn_does(tmp_path):
    model, _, task = image_setup()
    model.config.label2id = {name: i for i, name in enumerate(task.label_names)}
    rows = {"train_dataset": image_rows(40), "eval_dataset": image_rows(24, seed=1), "forget": [1, 2]}
    rows |= {"model": model, "processing_class": task.processor}

    def make(**more):
        return NablaTauTrainer.from_datasets(args=NablaTauConfig(tmp_path / "out", use_cpu=True), **rows, **more)

    assert backbone_equal(make(base=vit(seed=3)).recipe.start(0), vit(seed=3))
    with pytest.raises(UserError, match="base= and recipe= both say how the model was made"):
        make(base=vit(seed=3), recipe=KnownRecipe(lambda seed: vit(seed)))
    assert make().recipe is None and make(recipe=(known := KnownRecipe(lambda seed: vit(seed)))).recipe is known
    model.config._name_or_path = str(tmp_path / "own")
    for folder, card in (("base", ""), ("own", f"---\nbase_model: {tmp_path / 'base'}\n---\n")):
        vit(seed=3).save_pretrained(tmp_path / folder)
        (tmp_path / folder / "README.md").write_text(card)
    found = make()
    assert FOUND in found.notes and backbone_equal(found.recipe.start(0), vit(seed=3))
