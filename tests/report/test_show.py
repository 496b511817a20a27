"""Pictures for notebooks: they show what the evidence holds, and say what is missing."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hf_unlearn.report import show
from hf_unlearn.report.compare import Comparison

EDGES = [0.01, 0.1, 1.0, 10.0]
LOSS = {
    "edges": EDGES,
    "counts": {
        "original": {"forget": [4, 0, 0], "retain": [8, 0, 0], "unseen": [1, 2, 1]},
        "unlearned": {"forget": [1, 2, 1], "retain": [8, 0, 0], "unseen": [1, 2, 1]},
        "twins": {"forget": [2, 4, 2], "retain": [16, 0, 0], "unseen": [2, 4, 2]},
    },
}


def evidence(**more):
    roc = {"fpr": [0, 0.5, 1], "tpr": {"original": [0, 1, 1]}, "twins_range": None, "members": 4, "nonmembers": 2}
    row_z = {"edges": [-1.0, 0.0, 4.0], "counts": {"unlearned": [2, 2]}}
    curves = {"forget_loss": {"step": [5, 10], "value": [0.1, 1.0]}, "loss": {"step": [5], "value": [1.0]}}
    return {"distributions": {"loss": LOSS, "roc": roc, "row_z": row_z} | more, "training": {"curves": curves}}


class Result:
    def __init__(self, evidence):
        self.evidence = evidence


def drawn(figure):
    """It can be drawn, on white, and as it is: a figure belongs to no window."""
    assert figure.get_facecolor() == (1, 1, 1, 1) and not plt.get_fignums()
    figure.canvas.draw()
    return figure.axes


@pytest.mark.parametrize("draw", [show.loss_histogram, show.roc_curves, show.row_z_histogram, show.training_losses])
def test_a_result_and_its_evidence_give_the_same_picture(draw):
    (axes,) = drawn(draw(Result(evidence())))
    (same,) = drawn(draw(evidence()))
    assert len(axes.patches) == len(same.patches) and len(axes.lines) == len(same.lines)
    assert len(axes.patches) + len(axes.lines) > 0


def test_the_words_of_the_row_picture_have_room_on_both_sides():
    (axes,) = drawn(show.row_z_histogram(evidence()))
    low, high = axes.get_xlim()
    assert low == -high and high >= 6


def test_only_the_losses_of_the_streams_are_drawn_over_time():
    (axes,) = drawn(show.training_losses(evidence()))
    assert [line.get_label() for line in axes.lines] == ["forget_loss"]


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="two twins"):
        show.row_z_histogram(evidence(row_z=None))
    with pytest.raises(ValueError, match="no distributions"):
        show.loss_histogram({"distributions": None})
    with pytest.raises(ValueError, match="no pictures"):
        show.images([])


def test_panels_show_shares_by_result():
    first, second = drawn(show.loss_panels({"one": evidence(), "two": Result(evidence())}))
    assert [axes.get_title() for axes in (first, second)] == ["one", "two"]
    (unlearned,) = [patch for patch in first.patches if patch.get_label() == "unlearned"]
    values, edges, _ = unlearned.get_data()
    assert list(values) == [25, 50, 25] and list(edges) == EDGES


def test_losses_over_time_keep_every_row():
    losses = {"start": [1e-9, 0.02, 0.03], "end": [2.0, 3.0, 1e9]}
    panels = drawn(show.losses_over_time(losses, twins=[2.0, 4.0]))
    for axes in panels:
        for patch in axes.patches:
            assert np.isclose(patch.get_data()[0].sum(), 100)
    assert drawn(show.losses_over_time({"start": [0.5, 0.5]}, twins=[0.5]))  # all alike


def test_labels_of_close_points_lie_apart_each_nearest_to_its_own():
    found = [("start", 52, 93.7, 0.0), ("best", 0.7, 94.6, 0.3), ("lower", 2, 93.45, 0.3), ("upper", 2, 93.7, 0.25)]
    points = [{"name": n, "gap": gap, "accuracy": right, "cost": cost, "best": True} for n, gap, right, cost in found]
    (axes,) = drawn(show.pareto(Comparison([], [], [], [], [], points, 2.8)))
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text() != "floor"}
    assert list(boxes) == ["start", "best", "lower", "upper"]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes.values(), 2))
    places = {point["name"]: axes.transData.transform((point["gap"], point["accuracy"])) for point in points}
    for name, box in boxes.items():
        middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        assert min(places, key=lambda other, at=middle: np.hypot(*(places[other] - at))) == name


def test_a_grid_of_images():
    axes = drawn(show.images([np.zeros((8, 8))] * 5, list("abcde"), columns=3))
    assert len(axes) == 6 and [a.get_title() for a in axes] == ["a", "b", "c", "d", "e", ""]
    assert len(drawn(show.images([np.zeros((8, 8))]))) == 1
