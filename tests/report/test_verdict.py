import pytest

from hf_unlearn.report import render_table, verdict
from hf_unlearn.report.verdict import OPEN, TOLD, WITHIN, damage, headline, holm, original_gap, outcomes


def found(evidence, model="unlearned"):
    return {outcome.key: outcome.found for outcome in outcomes(evidence, model)}


def figure(evidence, key, **values):
    evidence["judged"]["unlearned"][key] |= values


def test_holm_by_hand():
    # 0.01 ≤ 0.05/4, 0.016 ≤ 0.05/3, 0.03 > 0.05/2: from there on nothing is refused, 0.04 neither.
    p_values = {"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.016}
    assert holm(p_values, 0.05) == {"b": True, "d": True, "a": False, "c": False}
    assert holm({}) == {}


def test_a_figure_has_one_of_three_outcomes(make_evidence):
    evidence = make_evidence(4)
    figure(evidence, "forget_accuracy", difference=9.0, interval=[6.0, 12.0], p=1e-6)
    figure(evidence, "membership", difference=1.0, interval=[-1.0, 2.9], p=0.5)
    figure(evidence, "test_accuracy", difference=-1.0, interval=[-4.0, 2.0], p=0.3, seen=3.2, twins_needed=7)
    outcome = found(evidence)
    assert [outcome[key] for key in ("forget_accuracy", "membership", "test_accuracy")] == [TOLD, WITHIN, OPEN]
    text = " ".join(verdict(evidence))
    assert "Told apart from 4 twins: forget accuracy 9.0 points above (6.0 to 12.0 points)" in text
    assert "membership AUC −1.0 to 2.9 points (margin ±3.0 points)" in text
    assert "test accuracy −4.0 to 2.0 points (margin −2.0 points)" in text
    assert "these would have been told apart: " in text and "test accuracy 3.2 points" in text
    assert "To settle it would take: test accuracy about 7 twins." in text
    assert headline(evidence).startswith("Told apart from 4 retrained twins: forget accuracy")


def test_with_hardly_any_rows_no_difference_is_said_to_have_been_seen(make_evidence):
    evidence = make_evidence(4)
    figure(evidence, "forget_accuracy", difference=9.0, interval=[-34.0, 51.0], p=0.6, seen=140.2)
    text = " ".join(verdict(evidence))
    assert "would have been told apart: forget accuracy not even 50 points;" in text and "140.2" not in text
    assert "No number of twins settles any of them for a single run." in verdict(evidence)
    figure(evidence, "test_accuracy", twins_needed=7)
    assert "No number of twins settles forget accuracy for a single run." in verdict(evidence)


def test_a_difference_inside_the_margin_is_none_however_sure(make_evidence):
    evidence = make_evidence(4)
    figure(evidence, "forget_accuracy", difference=1.0, interval=[0.5, 1.5], p=1e-9)
    assert found(evidence)["forget_accuracy"] == WITHIN


def test_better_on_kept_rows_is_no_fault(make_evidence):
    evidence = make_evidence(4)
    figure(evidence, "test_accuracy", difference=8.0, interval=[5.0, 11.0], p=1.0)
    assert found(evidence)["test_accuracy"] == WITHIN


def test_one_more_twin_is_not_told_apart_and_the_original_is(make_evidence):
    evidence = make_evidence(4)
    assert TOLD not in found(evidence).values()
    assert headline(evidence).startswith("Not told apart from 4 retrained twins; as good as they are in ")
    assert TOLD in found(evidence, "original").values()
    remembered = make_evidence(4, unlearned=1.5)
    assert found(remembered)["row_shift"] == TOLD and "above: remembered" in " ".join(verdict(remembered))
    forgotten = make_evidence(4, unlearned=-1.5)
    assert found(forgotten)["row_shift"] == TOLD and "below: over-forgotten" in " ".join(verdict(forgotten))


def test_lost_utility_comes_first(make_evidence):
    evidence = make_evidence(4, shift=-2)
    assert headline(evidence).startswith("Damaged: test accuracy 26.0 points below the twins. Told apart from 4 ")
    assert verdict(evidence)[0].startswith("Damaged: test accuracy")
    for twins in (0, 1):  # nobody says what is normal, but a fall from the original's is plain
        alone = headline(make_evidence(twins, shift=-2))
        assert alone.startswith("Damaged: test accuracy fell from ") and "Not judged" in alone
        assert headline(make_evidence(twins)).startswith("Not judged")


@pytest.mark.parametrize(
    "examples, said", [(21_599, None), (21_600, "at most twice as much"), (40_000, "as much"), (50_000, "less")]
)
def test_from_half_a_retraining_on_the_cost_is_said(make_evidence, examples, said):
    evidence = make_evidence(2)
    evidence["cost"]["unlearn_examples"] = examples
    lines = [line for line in verdict(evidence) if line.startswith("Retraining forgets exactly and costs ")]
    assert [line.split(" costs ")[1].split(":")[0] for line in lines] == ([said] if said else [])


def test_verdict_says_when_there_is_no_yardstick(make_evidence):
    assert "No retrained twin" in verdict(make_evidence(0))[0]
    assert "take two, better four" in verdict(make_evidence(1))[0]
    nothing = make_evidence(4)
    nothing["models"]["unlearned"] = None
    assert headline(nothing).startswith("Not judged") and verdict(nothing) == []
    unknown = make_evidence(4)
    unknown["judged"]["unlearned"] = None
    assert headline(unknown) == "Not judged: none of the figures was measured."


def test_verdict_says_when_doing_nothing_is_as_good(make_evidence):
    evidence = make_evidence(4, original=0.0)
    assert any("can hardly tell methods apart" in line for line in verdict(evidence))
    assert "doing nothing would not be told apart" in headline(evidence)
    assert not any("can hardly tell" in line for line in verdict(make_evidence(4)))
    gap = original_gap(evidence["models"])
    assert gap["average"] == pytest.approx(sum(v for k, v in gap.items() if k != "average") / 4)


def test_few_rows_are_named(make_evidence):
    evidence = make_evidence(4)
    evidence["data"]["splits"]["forget"] = 20
    assert "Only 20 forget rows: one of them moves an accuracy by 5.0 points." in verdict(evidence)


def test_the_table_says_it_too(make_evidence):
    evidence = make_evidence(4, unlearned=1.5)
    assert "Told apart from 4 twins" in render_table(evidence)
    assert "\n\nTold apart from 4 retrained twins: " in render_table(evidence)


@pytest.mark.parametrize("twins", [0, 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_losses_that_are_no_numbers_are_damage(make_evidence, twins, value):
    """They leave the attack and the rows unjudged, and a model that breaks down on a row is not like a twin."""
    evidence = make_evidence(twins)
    assert damage(evidence) is None
    evidence["models"]["unlearned"]["loss"]["forget"] = value
    assert headline(evidence).startswith("Damaged: losses of forget rows are not finite. ")
    assert verdict(evidence)[0] == "Damaged: losses of forget rows are not finite."
    evidence["models"]["original"]["loss"]["forget"] = value  # then it is nothing that the unlearning did
    assert damage(evidence) is None
