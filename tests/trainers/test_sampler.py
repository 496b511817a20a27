import numpy as np
import pytest

from hf_unlearn.trainers.sampler import JointSampler, StreamSize
from hf_unlearn.trainers.schedule import Phase, Schedule


def sampler(accumulation=1, world_size=1, rank=0, steps=12, seed=3):
    streams = {"forget": StreamSize(11, 4), "retain": StreamSize(30, 8)}
    return JointSampler(Schedule([Phase("unlearn", steps)]), streams, seed, accumulation, world_size, rank)


@pytest.mark.parametrize("accumulation, world", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_a_step_trains_on_the_same_rows_however_it_is_divided(accumulation, world):
    whole = [sorted(batch) for batch in sampler()]
    ranks = [list(sampler(accumulation, world, rank)) for rank in range(world)]
    for step, expected in enumerate(whole):
        parts = [b for batches in ranks for b in batches[step * accumulation : (step + 1) * accumulation]]
        assert sorted(pair for part in parts for pair in part) == expected
        assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_each_forget_pass_holds_every_forget_row_once_and_ends_with_a_smaller_batch():
    batches = [sampler().rows(step)["forget"] for step in range(6)]
    assert [len(b) for b in batches] == [4, 4, 3, 4, 4, 3]
    for one_pass in (batches[:3], batches[3:]):
        assert sorted(np.concatenate(one_pass)) == list(range(11))
    assert list(batches[0]) != list(batches[3])


def test_the_retain_stream_runs_on_across_passes_and_is_always_full():
    rows = np.concatenate([sampler(steps=15).rows(step)["retain"] for step in range(15)])
    assert len(rows) == 15 * 8
    for start in (0, 30, 60, 90):
        assert sorted(rows[start : start + 30]) == list(range(30))


def test_rows_depend_on_the_step_alone_not_on_what_was_asked_before():
    asked_late = sampler().rows(9)
    fresh = sampler()
    for step in range(12):
        again = fresh.rows(step)
        if step == 9:
            assert all(np.array_equal(asked_late[k], again[k]) for k in again)
    assert not np.array_equal(sampler(seed=4).rows(0)["retain"], sampler().rows(0)["retain"])


def test_a_phase_that_does_not_name_a_stream_neither_reads_nor_advances_it():
    streams = {"forget": StreamSize(11, 4), "retain": StreamSize(30, 8)}
    phases = [Phase("repair", 3, streams=("retain",)), Phase("unlearn", 2)]
    joint = JointSampler(Schedule(phases), streams, seed=3)
    assert all("forget" not in joint.rows(step) for step in range(3))
    assert np.array_equal(joint.rows(3)["forget"], sampler().rows(0)["forget"])
    assert np.array_equal(joint.rows(3)["retain"], sampler().rows(3)["retain"])


def test_max_steps_cuts_or_lengthens_the_schedule():
    phases = [Phase("a", 3), Phase("b", 4)]
    assert [p.steps for p in Schedule(phases, 2).phases] == [2]
    assert [p.steps for p in Schedule(phases, 5).phases] == [3, 2]
    assert [p.steps for p in Schedule(phases, 9).phases] == [3, 6]
    turns = [Phase("a", 3), Phase("b", 4), Phase("a", 3), Phase("c", 0)]
    left_out = {steps: Schedule(turns, steps).left_out for steps in (-1, 3, 4, 20)}
    assert left_out == {-1: [], 3: ["b"], 4: [], 20: []}
    assert Schedule(phases).at(4)[0].name == "b" and Schedule(phases).at(4)[1] == 1


def test_rates_of_a_phase():
    phase = Phase("p", 10, learning_rate=1e-3, final_learning_rate=1e-4, rate_every=5)
    assert [phase.rate(s) for s in (0, 4)] == [1e-3, 1e-3]
    assert phase.rate(5) == pytest.approx(5.5e-4)
    assert Phase("p", 10).rate(3) is None


def test_a_divided_step_puts_rows_of_like_length_together():
    lengths, asked = np.random.default_rng(0).integers(1, 50, 40), []

    def known(stream, rows):
        asked.append(stream)
        return lengths[rows] if stream == "retain" else None

    def made(accumulation, world, rank):
        one = sampler(accumulation, world, rank)
        return JointSampler(one.schedule, one.streams, 3, accumulation, world, rank, lengths=known)

    for step in range(4):
        rows = sampler().rows(step)
        parts = [made(2, 2, rank).micro_batches(step) for rank in range(2)]
        joined = [parts[rank][k] for k in range(2) for rank in range(2)]
        retain = [[lengths[row] for stream, row in part if stream == "retain"] for part in joined]
        flat = [length for part in retain for length in part]
        assert flat == sorted(flat) == sorted(lengths[rows["retain"]]) and len(set(flat)) > 1
        forget = [row for part in joined for stream, row in part if stream == "forget"]
        assert forget == rows["forget"].tolist()  # of unknown length: as they are drawn
    asked.clear()
    assert made(1, 1, 0).micro_batches(0) == sampler().micro_batches(0) and not asked
