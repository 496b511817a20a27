import yaml

from hf_unlearn.report import render_card


def front_matter(card):
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def test_front_matter_and_text(make_evidence):
    card = render_card(make_evidence(4), base_model="google/vit-base-patch16-224", license="apache-2.0")
    front, text = front_matter(card)
    assert front == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "base_model": "google/vit-base-patch16-224",
        "pipeline_tag": "image-classification",
        "tags": ["unlearning", "hf_unlearn", "nabla_tau"],
    }
    assert "120 training rows of 1,200 were to be forgotten (a random share)." in text
    assert "after Trippa et al. 2024, [∇τ](https://arxiv.org/abs/2403.14339)." in text
    assert "| forget accuracy (%) |" in text
    assert "no certificate" in text and "seed 7" in text
    assert 'pipeline("image-classification"' in text


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
    card = render_card(make_evidence(0), library_name="peft")
    assert front_matter(card)[0]["library_name"] == "peft"
    assert "removes nothing from its base model" in card
    assert "removes nothing" not in render_card(make_evidence(0))
