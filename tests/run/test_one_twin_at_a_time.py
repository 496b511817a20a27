"""Of twins and references one at a time is in memory: each is scored, and disturbed, when it is there, and let go."""

import gc
import json
import weakref

import pytest
import tiny

from hf_unlearn.run import stages
from hf_unlearn.run.parsing import parse_arguments
from hf_unlearn.run.rows import prepare_data
from hf_unlearn.train import main


@pytest.mark.slow
def test_one_twin_at_a_time(tmp_path, monkeypatch):
    score, train, load = stages.score_model, stages.train_by_recipe, stages.load_model
    alive: weakref.WeakSet = weakref.WeakSet()
    seen: list[tuple[str, int]] = []

    def look(what: str) -> None:
        seen.append((what, len(alive)))

    def scoring(arguments, data, model, title=None):
        look(title)
        return score(arguments, data, model, title)

    def training(arguments, data, rows, seed, title):
        look(title)
        trained = train(arguments, data, rows, seed, title)
        if "twin" in title:
            alive.add(trained.model)
        return trained

    def loading(arguments, task, name):
        look("reading")
        model = load(arguments, task, name)
        alive.add(model)
        return model

    monkeypatch.setattr(stages, "score_model", scoring)
    monkeypatch.setattr(stages, "train_by_recipe", training)
    made = tiny.own_data(tmp_path, "text_classification", max_steps=2)
    references = [str(tmp_path / name) for name in ("first", "second")]
    for k, name in enumerate(references):
        data = prepare_data(parse_arguments(["--config", tiny.write_config(tmp_path, made)]))
        data.loaded.classifier.bias.data[0] += k / 4
        data.loaded.save_pretrained(name)
        data.task.processor.save_pretrained(name)
    monkeypatch.setattr(stages, "load_model", loading)
    config = made | {"retrain": 2, "reference_model": references, "stress": True}
    gc.disable()  # what is let go goes when it is told to
    try:
        assert main(["--config", tiny.write_config(tmp_path, config)]) == 0
    finally:
        gc.enable()
    named = dict(seen)
    assert named["twin 1 of 2"] == named["twin 2 of 2"] == 1 and named["reference 2 of 2"] == 1
    assert named["retraining twin 2 of 2"] == 0 and named["the unlearned model"] == 0
    assert [count for what, count in seen if what == "reading"] == [0] * 6, seen
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert evidence["models"]["retrained"]["twins"] == 4
    curve = evidence["stress"]["curve"]["figures"]
    assert all(figure["twins"] is not None for figure in curve.values()) and evidence["stress"]["cells"]
