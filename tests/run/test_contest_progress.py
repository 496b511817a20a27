from hf_unlearn.run.contest_progress import ContestProgress


def test_a_contest_says_where_it_is_and_what_is_left(capsys):
    now = [0.0]
    progress = ContestProgress(6, ["original", "npo", "salun", "npo"], clock=lambda: now[0])
    for name, seconds in (("original", 10), ("npo", 200), ("salun", 30), ("npo", 200)):
        with progress.step(name, 0):
            now[0] += seconds
    assert capsys.readouterr().out.splitlines() == [
        "contest    3 of 6: seed_0, original",
        "contest    4 of 6: seed_0, npo; about 30 s left",  # three steps like the only one that is known
        "contest    5 of 6: seed_0, salun; about 5 min left",  # 200 s for npo, the mean of both for salun
        "contest    6 of 6: seed_0, npo; about 3 min left",
    ]
    assert progress.seconds_left() == 0


def test_a_step_that_fails_is_not_done():
    progress = ContestProgress(1, ["npo"])
    try:
        with progress.step("npo", 1):
            raise ValueError
    except ValueError:
        pass
    assert progress.left == ["npo"]
