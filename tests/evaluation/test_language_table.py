"""Generated answers, options and the language block on a tiny model, against loops and formulas written out here."""

import copy
import json

import numpy as np
import pytest
import torch
from toy import SETUPS, splits_of, text_rows

from hf_unlearn.data.rows import Rows
from hf_unlearn.errors import UserError
from hf_unlearn.evaluation.attacks import threshold_attack
from hf_unlearn.evaluation.generation import answers, generate, sample_rows
from hf_unlearn.evaluation.language_table import ROLES, LanguageData, language_block, measure
from hf_unlearn.evaluation.perturbed import choice_figures, choices_of, make_choices
from hf_unlearn.evaluation.scoring import score, score_splits
from hf_unlearn.report.language import HEADER, language_rows

SCORED = ("forget", "retain", "test", "nonmembers")


def with_options(rows, every: int = 1):
    """Two or three wrong answers for every `every`-th row."""
    texts = rows["answer"]
    wrong = [[" ".join(reversed(t.split())), "owl owl", "red"][: 2 + i % 2] if i % every == 0 else None
             for i, t in enumerate(texts)]  # fmt: skip
    rows = rows.add_column("perturbed_answer", wrong)
    return rows.add_column("paraphrased_answer", [f"new {text}" for text in texts])


@pytest.fixture
def setup():
    model, _, task = SETUPS["lm"]()
    return model, splits_of(with_options(text_rows(74)), task), task


def learn(model, task, rows, steps=150):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = task.collate(rows.__getitems__(range(len(rows))))
    for _ in range(steps):
        optimizer.zero_grad()
        task.predict(model, batch).loss.mean().backward()
        optimizer.step()


def test_generation_is_greedy_whatever_the_padding(setup):
    """Prompts of different lengths in one batch give what each gives alone, token by token."""
    model, splits, task = setup
    learn(model, task, splits.forget, 20)
    model.train()
    texts = generate(model, task, splits.forget, max_new_tokens=5, batch_size=8)
    assert model.training
    model.eval()
    for i, feature in enumerate(splits.forget.__getitems__(range(len(splits.forget)))):
        start = int((feature["labels"] == -100).sum())
        ids = feature["input_ids"][:start]
        for _ in range(5):
            with torch.no_grad():
                following = model(ids[None]).logits[0, -1].argmax()
            ids = torch.cat([ids, following[None]])
            if following == task.processor.eos_token_id:
                break
        assert texts[i] == task.processor.decode(ids[start:].tolist(), skip_special_tokens=True)
    assert answers(task, splits.forget) == [splits.forget.source[i]["answer"] for i in splits.forget.indices]


def test_generation_stops_at_the_models_positions(setup):
    model, splits, task = setup
    model.config.max_position_embeddings = 16
    texts = generate(model, task, splits.test, max_new_tokens=500)
    assert texts == generate(model, task, splits.test, max_new_tokens=500, batch_size=1)  # whoever is beside
    assert len(texts) == len(splits.test)


def test_options_by_hand(setup):
    model, splits, task = setup
    choices = choices_of(task, splits.forget, [])
    figures = choice_figures(model, task, choices, options_only=True)
    rows = splits.forget.source.select(splits.forget.indices)

    def nll(question, answer):
        import datasets

        one = datasets.Dataset.from_dict({"question": [question], "answer": [answer]})
        return score(model, task, Rows(one, task)).loss[0]

    for i in (0, 1, 5):
        row = rows[i]
        wrong = [nll(row["question"], answer) for answer in row["perturbed_answer"]]
        ratio = np.exp(-np.mean(wrong)) / np.exp(-nll(row["question"], row["paraphrased_answer"]))
        assert figures["truth_ratio"][i] == pytest.approx(ratio, rel=1e-4)
        own = np.exp(-nll(row["question"], row["answer"]))
        assert figures["probability"][i] == pytest.approx(own / (own + np.exp(-np.array(wrong)).sum()), rel=1e-4)


def test_a_wrong_answer_without_a_number_is_no_missing_one(setup, monkeypatch):
    """A model that breaks down on one of the options has no truth ratio there, rather than that of the others."""
    model, splits, task = setup
    choices = choices_of(task, splits.forget, [])

    def broken(model, task, rows, **options):
        found = score(model, task, rows, **options)
        if rows is choices.wrong:
            found.loss[1] = np.nan
        return found

    monkeypatch.setattr("hf_unlearn.evaluation.perturbed.score", broken)
    assert choices.owner[:2].tolist() == [0, 0]
    for values in choice_figures(model, task, choices, options_only=True).values():
        assert np.isnan(values).tolist() == [True] + [False] * (len(choices) - 1)


def test_options_of_some_rows_and_of_other_files(setup):
    _, splits, task = setup
    some = splits_of(with_options(text_rows(74), every=3), task)
    assert len(choices_of(task, some.forget, [])) == 4  # rows 0, 3, 6, 9 of 11
    plain = splits_of(text_rows(74), task)
    assert choices_of(task, plain.forget, []) is None
    other = with_options(text_rows(74)).select(range(5, 15))
    assert len(choices_of(task, plain.forget, [other])) == 6
    assert len(choices_of(task, plain.retain, [other])) == 4 and choices_of(task, plain.test, [other]) is None
    with pytest.raises(UserError, match="lack the columns"):
        make_choices(task, other.remove_columns("question"))
    with pytest.raises(UserError, match="lists of texts"):
        make_choices(task, other.remove_columns("perturbed_answer").add_column("perturbed_answer", list(range(10))))


@pytest.fixture
def block(setup):
    model, splits, task = setup
    original, twins = copy.deepcopy(model), [copy.deepcopy(model), copy.deepcopy(model)]
    learn(original, task, splits.forget)
    for i, twin in enumerate(twins):
        learn(twin, task, splits.retain, 10 + i)
    data = LanguageData.build(task, splits)
    models = {"original": original, "unlearned": model, "twin 1": twins[0], "twin 2": twins[1]}
    measured = {name: measure(m, data, SCORED, batch_size=16) for name, m in models.items()}
    return data, models, measured, language_block(measured, data)


@pytest.mark.slow
def test_the_block(block):
    data, models, measured, found = block
    json.dumps(found, allow_nan=False)
    figures = found["figures"]
    known = [f"forget_{n}" for n in ("probability", "rouge", "extraction_strength", "exact_memorization")]
    for name in known:
        assert figures[name]["original"] > 0.9 > figures[name]["unlearned"], name
    for role in ROLES:
        assert f"{role}_truth_ratio" in figures
    unlearned = [figures[f"retain_{name}"]["unlearned"] for name in ("probability", "rouge", "truth_ratio")]
    harmonic = 3 / sum(1 / value for value in unlearned) if min(unlearned) > 0 else 0
    assert figures["model_utility"]["unlearned"] == pytest.approx(harmonic)
    loss = {name: score_splits(models[name], data.task, data.splits, SCORED) for name in ("original", "unlearned")}
    for name, scores in loss.items():
        expected = threshold_attack(-scores["forget"].loss, -scores["nonmembers"].loss)["auc"]
        assert found["attacks"]["loss"][name]["value"] == pytest.approx(expected["value"])
        assert measured[name].scores["retain"].loss == pytest.approx(scores["retain"].loss)
    assert set(found["attacks"]) == {"loss", "zlib", "min_k", "min_k_plus_plus", "reference"}
    assert found["attacks"]["loss"]["original"]["value"] > 0.9
    assert found["priv_leak"]["original"] < 0  # still told from unseen rows
    quality = found["forget_quality"]
    assert quality["original"]["distance"] > quality["twins"]["distance"]
    rows = language_rows(found)
    assert rows[0] == HEADER and all(len(row) == 4 for row in rows) and language_rows(None) == []


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_twins_original_and_options(setup):
    model, _, task = setup
    data = LanguageData.build(task, splits_of(text_rows(74), task), max_new_tokens=0)
    found = language_block({"original": None, "unlearned": measure(model, data, SCORED)}, data)
    assert found["priv_leak"] == {"original": None, "unlearned": None}
    assert set(found["forget_quality"].values()) == {None} and "reference" not in found["attacks"]
    assert found["figures"]["model_utility"]["unlearned"] is None
    assert found["figures"]["forget_rouge"]["unlearned"] is None
    said = " ".join(found["not_checked"])
    assert "max_new_tokens" in said and "Truth ratio" in said and "utility" in said
    language_rows(found)


@pytest.mark.slow
def test_all_nine_figures_for_pretrained_models(setup):
    model, splits, task = setup
    data = LanguageData.build(task, splits)
    for name in ("real_authors", "world_facts"):
        data.choices[name] = make_choices(
            task, with_options(text_rows(8, seed=5)).remove_columns("paraphrased_answer")
        )
    figures = language_block({"original": None, "unlearned": measure(model, data, SCORED)}, data)["figures"]
    nine = [figures[f"{split}_{name}"]["unlearned"] for split in ("retain", "real_authors", "world_facts")
            for name in ("probability", "rouge", "truth_ratio")]  # fmt: skip
    expected = 9 / sum(1 / value for value in nine) if min(nine) > 0 else 0
    assert figures["model_utility"]["unlearned"] == pytest.approx(expected)


def test_sampled_rows_depend_on_the_seed_alone(setup):
    _, splits, _ = setup
    assert sample_rows(splits.retain, 100, 0) is splits.retain
    drawn = sample_rows(splits.retain, 7, 3).indices
    assert drawn == sample_rows(splits.retain, 7, 3).indices == sorted(drawn) and len(drawn) == 7
