"""What models draw: distances against known ones, a judge that knows, and a picture that keeps forgotten rows."""

import base64
from io import BytesIO

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from toy_diffusion import NAMES, denoising_setup

from hf_unlearn.evaluation.answers import ORIGINAL, UNLEARNED
from hf_unlearn.evaluation.scoring import score
from hf_unlearn.report.drawn import caption, drawn_rows, picture_of
from hf_unlearn_diffusion.drawings import Drawings, draw, side_by_side
from hf_unlearn_diffusion.draws import DRAWS
from hf_unlearn_diffusion.frechet import frechet_distance
from hf_unlearn_diffusion.judge import Judge


def test_the_frechet_distance_is_the_known_one():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5)), rng.normal(1, 2, size=(400, 5))
    spreads = [np.cov(cloud, rowvar=False) for cloud in (first, second)]
    root = scipy.linalg.sqrtm(spreads[0] @ spreads[1]).real
    by_hand = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(spreads[0] + spreads[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(by_hand)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    line = np.array([[0.0], [2.0], [4.0]])  # means 2 and 5, deviations 2 and 4: (2 − 5)² + (2 − 4)²
    assert frechet_distance(line, 2 * line + 1) == pytest.approx(13)
    assert frechet_distance(first[:1], second) is None


def test_figures_side_by_side_have_gap_and_floor():
    found = side_by_side({ORIGINAL: 0.9, UNLEARNED: 0.1, "a": 0.2, "b": 0.4}, ["a", "b"])
    assert found == pytest.approx({"original": 0.9, "unlearned": 0.1, "twins": 0.3, "gap": 0.2, "floor": 0.2})
    assert side_by_side({UNLEARNED: 0.1, "a": 0.2}, ["a"])["floor"] is None


@pytest.fixture
def stripes():
    """Splits whose images show their classes: a bright line in one of four places."""
    model, splits, task = denoising_setup(
        roles={"forget": 12, "retain": 60, "validation_tau": 4, "validation_stop": 4, "test": 40}
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, size=(120, 8, 8))
    for place in range(120):
        images[place, 2 * (place % 4)] = 255
    source = splits.forget.source.remove_columns("image").add_column("image", images.tolist())
    for rows in (splits.forget, splits.retain, splits.test):
        rows.source = source
    splits.forgotten_classes = (1,)
    return model, splits, task


def test_a_judge_tells_what_images_show(stripes):
    _, splits, _ = stripes
    judge = Judge.fit(splits.retain, splits.test)
    assert judge.accuracy == 1
    lines = np.full((4, 1, 8, 8), -1.0)
    for k in range(4):
        lines[k, 0, 2 * k] = 1
    assert judge.classes(lines).tolist() == [0, 1, 2, 3] and judge.features(lines).shape == (4, 128)
    assert judge.classes(np.zeros((0, 1, 8, 8))).shape == (0,)


def test_drawings_are_judged_and_the_picture_keeps_forgotten_rows(stripes, tmp_path):
    model, splits, task = stripes
    before = {name: p.clone() for name, p in model.named_parameters()}
    drawings = Drawings(task, 3)
    for name in (ORIGINAL, UNLEARNED, "twin 1 of 2", "twin 2 of 2"):
        drawings.ask(name, model, splits)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    images = drawings.shown[ORIGINAL]
    assert images.shape == (12, 1, 8, 8) and np.array_equal(images, draw(task, model, drawings.classes, 0))
    assert not np.array_equal(images, draw(task, model, drawings.classes, 1))
    # A twin that draws what it is asked for, whatever the network of the test may draw.
    perfect = np.full((4, 3, 1, 8, 8), -1.0)
    for k in range(4):
        perfect[k, :, 0, 2 * k] = 1
    drawings.shown["twin 1 of 2"] = perfect.reshape(12, 1, 8, 8)
    block = drawings.block()
    assert block["images"] == {"forgotten_classes": 3, "kept_classes": 9} and block["judge"]["accuracy"] == 1
    kept, judge = block["figures"]["kept_classes"], drawings.judge
    share = np.mean(judge.classes(images)[drawings.classes != 1] == drawings.classes[drawings.classes != 1])
    assert kept["recognised"]["original"] == share and kept["recognised"]["twins"] == pytest.approx((1 + share) / 2)
    assert kept["frechet_twins"]["floor"] == pytest.approx(2 * kept["frechet_twins"]["unlearned"])
    assert block["shown"] == [ORIGINAL, UNLEARNED, "twin 1 of 2"]
    for kind, rows in (("forget", splits.forget), ("test", splits.test)):  # the mean over a row's draws is its loss
        curve = block["curves"][UNLEARNED][kind]
        assert len(curve) == DRAWS and len(set(curve)) == DRAWS
        assert np.mean(curve) == pytest.approx(score(model, task, rows).loss.mean(), rel=1e-5)
    public = np.asarray(Image.open(BytesIO(base64.b64decode(picture_of(block)))).convert("L"))
    drawings.save(tmp_path)
    whole = np.asarray(Image.open(tmp_path / "drawings.png").convert("L"))
    column = slice(34, 66)  # of the second class: tiles of 32 pixels with 2 between them
    assert (public[:32, column] == public[0, 34]).all() and not (whole[:32, column] == whole[0, 34]).all()
    assert np.array_equal(public[:32, :32], whole[:32, :32])  # a kept class
    label, *cells = drawn_rows(block)[0]
    assert (
        label == "drawn as a forgotten class (%)"
        and cells[2] == f"{100 * block['figures']['forgotten_classes']['recognised']['twins']:.2f}"
    )


def test_rows_forgotten_without_their_class_leave_all_classes_kept(stripes):
    model, splits, task = stripes
    splits.forgotten_classes = ()
    drawings = Drawings(task, 2)
    for name in (ORIGINAL, UNLEARNED):
        drawings.ask(name, model, splits)
    drawings.shown[UNLEARNED] = -drawings.shown[ORIGINAL]
    block = drawings.block()
    assert block["shown"] == [UNLEARNED]  # of whatever class a forgotten row is, the original may draw it
    assert "The original is left out" in caption(block)
    assert (
        block["images"] == {"kept_classes": 8} and block["figures"]["kept_classes"]["frechet_twins"]["floor"] is None
    )
    assert picture_of({"picture": "no picture"}) is None and drawn_rows(None) == []
    assert len(NAMES) == 4


def test_what_the_original_draws_is_left_out_under_any_name(stripes):
    """A contest judges the original itself as one that does nothing; its images then stand for the unlearned model."""
    model, splits, task = stripes
    drawings = Drawings(task, 2)
    for name in (ORIGINAL, "another twin"):
        drawings.ask(name, model, splits)
    drawings.shown["another twin"] = -drawings.shown[ORIGINAL]
    another = drawings.of("another twin")
    drawings.drop("another twin")
    drawings.put(UNLEARNED, drawings.of(ORIGINAL))
    block = drawings.block()
    assert block["shown"] == [ORIGINAL, UNLEARNED] and block["curves"][UNLEARNED] == block["curves"][ORIGINAL]
    public = np.asarray(Image.open(BytesIO(base64.b64decode(picture_of(block)))).convert("L"))
    column = public[:, 34:66]  # of the forgotten class: nothing but grey, and white between the tiles
    assert set(np.unique(column)) == {public[0, 34], 255} and len(np.unique(public[:, :32])) > 2
    splits.forgotten_classes = drawings.gone = ()
    assert drawings.block()["shown"] == [] and picture_of(drawings.block()) is None
    drawings.put(UNLEARNED, (another[0], {"forget": [0.5]}))
    found = drawings.block()
    assert found["shown"] == [UNLEARNED] and found["curves"][UNLEARNED] == {"forget": [0.5]}


def test_one_image_has_no_distance_to_the_twins(stripes):
    drawings = Drawings(stripes[2], 1, shown={ORIGINAL: None, "twin 1 of 2": None, "twin 2 of 2": None})
    alone = dict.fromkeys(drawings.shown, np.ones((1, 3)))
    assert set(drawings._to_twins(alone).values()) == {None}


def test_the_curve_of_many_rows_is_not_of_the_first_classes(stripes, monkeypatch):
    """Files often lie class by class; rows that a curve is a mean of are drawn from all of them."""
    model, splits, task = stripes
    monkeypatch.setattr("hf_unlearn_diffusion.drawings.CURVE", 8)
    order = sorted(splits.test.indices, key=lambda place: place % 4)  # class by class
    rows, drawings = splits.test.at(order), Drawings(task, 1)
    curve = drawings._curve(model, rows, 16)
    some = np.sort(np.random.default_rng(0).permutation(len(rows))[:8])
    assert len({order[place] % 4 for place in some}) > 2
    assert np.mean(curve) == pytest.approx(score(model, task, rows).loss[some].mean(), rel=1e-5)
