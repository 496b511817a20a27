"""Rows with several labels: the figures are those of binary cross-entropy, and only models of that kind are taken."""

import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Features, List, Value
from toy import SETUPS, sets_setup, tokenizer
from transformers import BertConfig, BertForSequenceClassification

from hf_unlearn.errors import RowError, UserError
from hf_unlearn.evaluation.f1 import f1, f1_by_split
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.tasks import get_task, task_for
from hf_unlearn.tasks.label_sets import LabelSetPredictions

Task = get_task("multilabel_text_classification")
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, -3.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def predictions() -> LabelSetPredictions:
    return LabelSetPredictions.of(LOGITS, LABELS)


def test_figures_by_hand():
    found = predictions()
    signed = [[2.0, 1.0, -0.5], [0.0, 3.0, 1.0]]  # log-odds of what is true
    assert found.label_log_odds.view(2, 3).tolist() == signed
    losses = [[math.log1p(math.exp(-value)) for value in row] for row in signed]
    loss = [sum(row) / 3 for row in losses]
    assert found.loss.tolist() == pytest.approx(loss)
    assert found.log_odds.tolist() == pytest.approx([-math.log(math.expm1(value)) for value in loss])
    assert found.correct.tolist() == [0.0, 1.0]  # a logit of 0 says no
    assert found.said_labels.tolist() == [[True, False, True], [False, False, True]]
    assert found.true_labels.tolist() == LABELS.bool().tolist()
    sure = [[1 / (1 + math.exp(-abs(value))) for value in row] for row in signed]
    assert found.confidence.tolist() == pytest.approx([sum(row) / 3 for row in sure])
    assert found.label.tolist() == [-1, -1] and found.token_count.tolist() == [3, 3]


def test_loss_and_gradient_are_those_of_transformers():
    logits = (4 * torch.randn(6, 5, dtype=torch.float64)).requires_grad_()
    labels = (torch.rand(6, 5) > 0.5).double()
    own, theirs = LabelSetPredictions.of(logits, labels).loss.mean(), torch.nn.BCEWithLogitsLoss()(logits, labels)
    assert own.item() == pytest.approx(theirs.item())
    for a, b in zip(torch.autograd.grad(own, logits), torch.autograd.grad(theirs, logits), strict=True):
        assert torch.allclose(a, b)
    model, splits, task = sets_setup(torch.float64)
    batch = task.collate(splits.retain.__getitems__(range(8)))
    assert batch["labels"].shape == (8, 5)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    theirs = model(**inputs, labels=batch["labels"].double()).loss  # which goes by `problem_type`
    assert task.predict(model, batch).loss.mean().item() == pytest.approx(theirs.item())


def test_a_sure_row_keeps_its_log_odds():
    """A loss of e^−60 underflows beside 1; its log-odds do not."""
    found = LabelSetPredictions.of(torch.tensor([[60.0, -60.0]]), torch.tensor([[1.0, 0.0]]))
    assert found.log_odds.item() == pytest.approx(60.0)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_parts_are_parts_of_the_whole(first):
    whole, parts = predictions(), predictions().split(first)
    for name in ("loss", "log_odds", "correct"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert parts[1].said_labels.tolist() == whole.said_labels[first:].tolist() or first == 2


def test_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    true, said = (rng.random((40, 6)) < share for share in (0.3, 0.4))
    true[:, 4] = said[:, 4] = False  # nobody has it, and nobody says it: 0
    true[:, 5] = False  # said only
    ones = np.ones(40)
    scores = SplitScores(ones, ones, ones, ones, ones, true_labels=true * 1.0, said_labels=said * 1.0)
    for average in ("micro", "macro"):
        assert f1(scores)[average] == pytest.approx(f1_score(true, said, average=average, zero_division=0))
    assert f1(SplitScores(ones, ones, ones, ones, ones)) == {}
    assert list(f1_by_split({"test": scores}, ("forget", "test"))) == ["test_micro_f1", "test_macro_f1"]


def test_a_scoring_pass_keeps_the_labels_in_the_order_of_the_rows():
    model, splits, task = sets_setup()
    rows = splits.test
    found = score(model, task, rows, batch_size=4)
    assert found.true_labels.tolist() == [row["labels"].tolist() for row in rows.__getitems__(range(len(rows)))]
    assert np.array_equal(found.correct, (found.true_labels == found.said_labels).all(1))


def test_labels_are_ids_or_names_and_may_be_none():
    task = Task(tokenizer(), {"text": "text", "label": "labels"}, label_names=["joy", "anger", "awe"])
    rows = {"text": ["red"] * 4, "labels": [[2, 0], ["anger"], [], ["awe", "awe"]]}
    found = [row["labels"].tolist() for row in task.encode(rows, [0, 1, 2, 3])]
    assert found == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    for bad, why in (
        ("joy", "no list of labels"),
        (None, "no list of labels"),
        (["no"], "not one of"),
        ([3], "not one of"),
    ):
        with pytest.raises(RowError, match=f"^row 7: its? .*{why}"):
            task.encode({"text": ["red"], "labels": [bad]}, [7])


def test_columns():
    names = ClassLabel(names=["joy", "anger"])
    features = Features({"text": Value("string"), "labels": List(names), "id": Value("string")})
    detect = Task.detect_columns
    assert detect(list(features), features, {}) == {"text": "text", "label": "labels"}
    other = Features({"comment": Value("string"), "feelings": List(Value("int64"))})
    assert detect(list(other), other, {"label": "feelings"}) == {"text": "comment", "label": "feelings"}
    with pytest.raises(UserError, match="no column found for 'label'"):  # lists of other things are no labels
        detect(list(other), other, {})
    single = Features({"text": Value("string"), "label": names})
    with pytest.raises(UserError, match="'label' holds no lists.*`label_columns`"):
        detect(list(single), single, {"label": "label"})
    with pytest.raises(UserError, match="'labels' holds lists.*multilabel_text_classification"):
        get_task("text_classification").detect_columns(list(features), features, {})


def bert(labels: int = 5, **config):
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            num_labels=labels,
            **config,
        )  # fmt: skip
    )


def test_the_problem_type_tells_the_task():
    assert task_for(bert(problem_type="multi_label_classification")) is Task
    assert task_for(SETUPS["sets"]()[0]) is Task
    for problem in (None, "single_label_classification", "regression"):
        assert task_for(bert(problem_type=problem)).name == "text_classification"


def test_models_of_other_problems_and_labels_are_refused_by_name():
    task = sets_setup()[2]
    for problem in ("regression", "single_label_classification"):
        with pytest.raises(UserError, match=f"made for {problem}"):
            task.prepare_model(bert(problem_type=problem))
    with pytest.raises(UserError, match="4 labels and the data 5"):
        task.prepare_model(bert(4))
    with pytest.raises(UserError, match="another order"):
        task.prepare_model(bert(id2label=dict(enumerate(task.label_names[::-1]))))
    single = get_task("text_classification")(tokenizer(), {"text": "text", "label": "label"})
    with pytest.raises(UserError, match="multi_label_classification.*multilabel_text_classification"):
        single.prepare_model(bert(problem_type="multi_label_classification"))
    for model in (bert(1), bert(problem_type="regression")):
        with pytest.raises(UserError, match="made for regression"):
            single.prepare_model(model)


def test_a_model_that_says_no_problem_is_given_one():
    model, task = bert(), sets_setup()[2]
    task.prepare_model(model)
    assert model.config.problem_type == "multi_label_classification"


def test_a_bad_teacher_is_asked_about_every_label_of_its_own_row(tmp_path):
    from hf_unlearn.methods.bad_teacher import BadTeacherConfig, BadTeacherTrainer
    from hf_unlearn.trainers.split_output import SplitOutput

    model, splits, task = sets_setup(torch.float64)
    config = BadTeacherConfig(str(tmp_path), max_steps=1, use_cpu=True, disable_tqdm=True)
    trainer = BadTeacherTrainer(model, config, splits, task, quiet=True)
    teacher = torch.randn(len(splits.forget), 5, dtype=torch.float64)
    trainer.method_state["teacher"] = torch.stack([torch.zeros_like(teacher), teacher], 2).flatten(1)
    places = torch.tensor([4, 1])
    said = task.predict(model, task.collate(splits.forget.__getitems__(places.tolist())))
    outputs = [SplitOutput(name, said, places, 0.5) for name in ("forget", "retain")]
    outputs[1].original = outputs[1]  # the retain rows' teacher agrees
    p, q = torch.sigmoid(teacher[places]), torch.sigmoid(said.logits[:, 1].view(2, 5))
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    sizes = [trainer.stream_sizes()[name].batch for name in ("forget", "retain")]
    assert trainer.unlearning_loss(*outputs).item() == pytest.approx(kl.item() * sizes[0] / sum(sizes))
