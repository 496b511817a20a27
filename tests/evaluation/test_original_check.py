"""A model whose labels stand for other classes is told before anything is trained."""

from types import SimpleNamespace

import numpy as np

from hf_unlearn.evaluation.original_check import check_original
from hf_unlearn.evaluation.scores import SplitScores
from hf_unlearn.run.stages import look_at_original


def scores(correct, label) -> dict[str, SplitScores]:
    zeros = np.zeros(len(correct))
    label = None if label is None else np.array(label, dtype=float)
    return {"retain": SplitScores(zeros, zeros, np.array(correct, dtype=float), zeros, zeros, label=label)}


def test_less_right_than_the_commonest_label_alone_would_be_is_told():
    labels = [0, 0, 0, 1, 2]
    (said,) = check_original(scores([1, 1, 0, 0, 0], labels))
    assert "40 % of the retain rows right" in said and "always 60 %" in said
    assert not check_original(scores([1, 1, 1, 0, 0], labels))
    assert not check_original(scores([0, 0], None)) and not check_original(scores([0, 0], [-1, -1]))


def test_only_a_model_that_was_given_is_looked_at(capsys):
    before = scores([1, 0, 0, 0], [0, 0, 1, 1])
    for name, told in (("my-classifier", 1), (None, 0)):
        arguments = SimpleNamespace(model=SimpleNamespace(model_name_or_path=name))
        data = SimpleNamespace(report=SimpleNamespace(notes=[]))
        look_at_original(arguments, data, before)
        assert len(data.report.notes) == told
        assert capsys.readouterr().out.count("25 % of the retain rows right") == told
