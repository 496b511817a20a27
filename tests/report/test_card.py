import json
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from hf_unlearn.report import render_card
from hf_unlearn.report.card import base_license, bibtex
from hf_unlearn.report.picture import PICTURE, save_picture

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
TASKS = ["image_classification", "text_classification", "multilabel_text_classification", "causal_lm"]


def front_matter(card):
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def snippet(card):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    return code


def test_front_matter_and_text(make_evidence):
    evidence = make_evidence(4)
    evidence["data"]["source"] = "uoft-cs/cifar10"
    card = render_card(evidence, base_model="google/vit-base-patch16-224", license="apache-2.0")
    front, text = front_matter(card)
    assert front.pop("model-index")
    assert front == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "base_model": "google/vit-base-patch16-224",
        "base_model_relation": "finetune",
        "datasets": ["uoft-cs/cifar10"],
        "pipeline_tag": "image-classification",
        "tags": ["unlearning", "nabla_tau", "hf_unlearn"],
        "metrics": ["accuracy", "roc_auc"],
    }
    assert "120 training rows of 1,200 were to be forgotten (a random share), data set [uoft-cs/cifar10](" in text
    assert "after Trippa et al. 2024, [∇τ](https://arxiv.org/abs/2403.14339)." in text
    assert "| forget accuracy (%) |" in text and "floor |" in text
    assert "approximate unlearning; not a certified guarantee" in text and "seed 7" in text
    assert 'pipeline("image-classification"' in text


def test_the_figures_are_a_model_index_per_split(make_evidence):
    evidence = make_evidence(4)
    data = ModelCard(render_card(evidence, model_id="me/model")).data
    assert data.model_name == "me/model"
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in data.eval_results}
    unlearned = evidence["models"]["unlearned"]
    expected = {(split, "accuracy"): value for split, value in unlearned["accuracy"].items()}
    expected |= {(split, "loss"): value for split, value in unlearned["loss"].items()}
    expected[("forget", "roc_auc")] = unlearned["membership"]["loss_auc"]
    assert found == {key: round(value, 4) for key, value in expected.items()} and len(found) == 7
    assert {result.task_type for result in data.eval_results} == {"image-classification"}
    assert {(result.dataset_type, result.dataset_name) for result in data.eval_results} == {("local", "digits")}


@pytest.mark.parametrize("library", ["transformers", "peft"])
@pytest.mark.parametrize("task", TASKS)
def test_it_parses_as_a_model_card_and_its_fields_have_the_hubs_form(make_evidence, task, library):
    evidence = make_evidence(4) | {"task": task}
    card = ModelCard(render_card(evidence, base_model="org/base", library_name=library, picture=PICTURE))
    data = card.data.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["library_name"] == library
    assert data["base_model_relation"] == {"transformers": "finetune", "peft": "adapter"}[library]
    assert all(HUB_ID.fullmatch(name) for name in (data["base_model"], *data["tags"], data["pipeline_tag"]))
    for result in data["model-index"][0]["results"]:
        assert HUB_ID.fullmatch(result["dataset"]["type"]) and result["dataset"]["name"]
        assert all(isinstance(metric["value"], float) for metric in result["metrics"])
    headings = re.findall(r"^## (.*)$", card.text, re.M)
    assert headings == ["Figures", "Limits", "Use", "Citation", "Made with"]
    assert f"]({PICTURE})" in card.text
    compile(snippet(str(card)), "snippet", "exec")


def test_what_was_not_measured_is_left_out(make_evidence):
    evidence = make_evidence(0)
    evidence["models"]["unlearned"]["accuracy"]["test"] = None
    data = ModelCard(render_card(evidence)).data
    assert ("test", "accuracy") not in {(r.dataset_split, r.metric_type) for r in data.eval_results}
    evidence["models"]["unlearned"] = None
    assert "model-index" not in ModelCard(render_card(evidence)).data.to_dict()
    evidence["method"]["paper"] = None
    assert "## Citation" not in render_card(evidence)


def test_citation():
    paper = {"title": "A", "authors": "Fan et al.", "year": "2024", "id": "arXiv:2310.12508"}
    fields = ["title = {A}", "author = {Fan and others}", "year = {2024}", "eprint = {2310.12508}"]
    fields += ["archivePrefix = {arXiv}", "url = {https://arxiv.org/abs/2310.12508}"]
    assert bibtex(paper) == "@misc{fan2024,\n  " + ",\n  ".join(fields) + "\n}"
    two = paper | {"authors": "Ann van Foster, Bo Li and Cy Ma"}
    assert "author = {Ann van Foster and Bo Li and Cy Ma}" in bibtex(two) and bibtex(two).startswith(
        "@misc{foster2024"
    )


def test_all_authors_are_cited_and_the_text_is_short(make_evidence):
    evidence = make_evidence(0)
    evidence["method"]["paper"]["authors"] = "Ada Lovelace, Alan Turing, Grace Hopper"
    card = render_card(evidence)
    assert "author = {Ada Lovelace and Alan Turing and Grace Hopper}" in card and "after Lovelace et al. 2024" in card


def test_the_snippet_for_grey_images_runs(make_evidence, tmp_path, monkeypatch, capsys):
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification

    from hf_unlearn.data.builtin.digits import make_processor

    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = ViTConfig(**sizes, num_channels=1, intermediate_size=8, id2label={0: "zero", 1: "one"})
    ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    make_processor().save_pretrained(tmp_path / "model")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    card = render_card(make_evidence(0), model_id="model", grey=True)
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.strip() in ("zero", "one")


def test_the_title_names_the_model(make_evidence):
    evidence = make_evidence(0)
    assert "\n# digits (image classification), unlearned with nabla_tau\n" in render_card(evidence)
    assert "\n# someone/vit, unlearned with nabla_tau\n" in render_card(evidence, base_model="someone/vit")


def test_local_paths_and_the_request_stay_private(make_evidence, tmp_path):
    evidence = make_evidence(0)
    evidence["data"]["source"] = str(tmp_path / "patients")
    evidence["data"]["request"] = {"kind": "where", "column": "patient", "count": 1}
    card = render_card(evidence, base_model=str(tmp_path))
    assert str(tmp_path) not in card and "base_model" not in card
    assert "(by the value of a column)" in card


def test_classes_are_named_only_where_they_were_published(make_evidence):
    evidence = make_evidence(0)
    evidence["data"]["request"] = {"kind": "classes", "column": "label", "count": 1}
    assert "(whole classes)" in render_card(evidence)
    evidence["data"]["request"]["classes"] = ["cat"]
    assert "(classes: cat)" in render_card(evidence)


def test_an_adapter_says_what_it_does_not_do(make_evidence):
    evidence = make_evidence(0)
    card = render_card(evidence, library_name="peft")
    assert front_matter(card)[0]["library_name"] == "peft"
    assert "removes nothing from its base model" in card and "base still holds the forgotten rows" in card
    evidence["model"]["peft"] = {"given": True}
    assert "came with the model" in render_card(evidence, library_name="peft")
    assert "removes nothing" not in render_card(evidence)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\ntags: [x]\n---\n# A", {"license": "mit"}),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: https://a.b/c\n---\n",
            {"license": "other", "license_name": "own", "license_link": "https://a.b/c"},
        ),
        ("---\nlicense_name: own\n---\n", {}),
        ("---\ntags: [x]\n---\nlicense: mit\n", {}),
        ("---\nlicense: [mit\n---\n", {}),
        ("---\n- license\n---\n", {}),
        ("license: mit", {}),
        (None, {}),
    ],
)
def test_the_licence_is_read_from_the_bases_card_and_never_guessed(make_evidence, tmp_path, card, expected):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    found = base_license(str(tmp_path))
    assert found == expected
    data = ModelCard(render_card(make_evidence(0), license=found)).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


def test_the_licence_of_a_model_from_the_hub_is_that_of_its_cached_card(tmp_path, monkeypatch):
    asked = []
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")

    def cached(repo_id, filename):
        asked.append((repo_id, filename))
        return str(tmp_path / "README.md") if repo_id == "a/b" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert base_license("a/b") == {"license": "mit"} and asked == [("a/b", "README.md")]
    assert base_license("a/unknown") == {} == base_license(None) == base_license("/nowhere/at/all")


def test_the_picture(make_evidence, tmp_path):
    from PIL import Image

    evidence = make_evidence(0)
    assert save_picture(evidence, tmp_path) is None and not list(tmp_path.iterdir())
    roles = {"forget": [3, 4, 1], "retain": [1, 1, 1], "unseen": [1, 1, 1]}
    losses = {"edges": [0.01, 0.1, 1.0, 10.0], "counts": {"original": roles, "unlearned": roles, "twins": None}}
    losses["counts"]["twins"] = {"forget": [0, 0, 0]}
    evidence["distributions"] = {"loss": losses}
    assert save_picture(evidence, tmp_path) == PICTURE
    pixels = np.asarray(Image.open(tmp_path / PICTURE).convert("L"))
    assert pixels.shape[0] > 300 and pixels[0, 0] == 255 and pixels.std() > 5


# The snippet runs.


def vit():
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=3,
    )  # fmt: skip
    return ViTForImageClassification(config), ViTImageProcessorPil(size={"height": 8, "width": 8})


def saved_model(task, folder):
    from toy import lm_setup, sets_setup, text_setup

    if task == "image_classification":
        model, processor = vit()
    else:
        setup = {"text_classification": text_setup, "multilabel_text_classification": sets_setup}.get(task, lm_setup)
        model, _, of = setup()
        processor = of.processor
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return model, processor


@pytest.mark.parametrize("library", ["transformers", "peft"])
@pytest.mark.parametrize("task", TASKS)
def test_the_snippet_runs(make_evidence, tmp_path, monkeypatch, capsys, task, library):
    from PIL import Image

    model, processor = saved_model(task, tmp_path)
    labels = None if task == "causal_lm" else model.config.num_labels
    if library == "peft":
        from transformers import AutoModel

        from hf_unlearn.models.lora import add_lora
        from hf_unlearn.tasks import get_task

        # On a base that was never a classifier of these classes: the adapter brings the head.
        auto = get_task(task).auto_model() if task == "causal_lm" else AutoModel
        auto.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / "base")
        base = (
            get_task(task)
            .auto_model()
            .from_pretrained(tmp_path / "base", **({"num_labels": labels} if labels else {}))
        )
        add_lora(base, r=2, alpha=4, dropout=0.0, task_type=get_task(task).peft_task_type).save_pretrained(
            tmp_path / "adapter"
        )
        processor.save_pretrained(tmp_path / "adapter")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    name = tmp_path / ("adapter" if library == "peft" else "model")
    card = render_card(make_evidence(0) | {"task": task}, library_name=library, model_id=str(name), num_labels=labels)
    exec(snippet(card), {})
    shown = capsys.readouterr().out
    assert ("generated_text" if task == "causal_lm" else "score") in shown
    assert shown.count("score") == 5 or task != "multilabel_text_classification"
