"""The benchmarks' command and pages: what is committed is what the numbers say."""

import re

import numpy as np
import pytest

import phihat
from benchmarks import __main__ as command
from benchmarks import pairs, profile, tables
from phihat import problems


def test_the_committed_pages_are_those_of_the_committed_numbers():
    """Cured by `python -m benchmarks --pages`."""
    expected = tables.pages(tables.documents())
    folder = {path.stem: path for path in pairs.RESULTS.glob("*.md")}
    assert set(folder) == set(expected)
    for name, page in expected.items():
        assert folder[name].read_text(encoding="utf-8") == page


def test_pages_show_every_number_and_where_a_peer_is_faster():
    times = {
        "ours": {"run_seconds": 0.02, "compile_seconds": 1.5, "loss": 0.25},
        "quick": {
            "run_seconds": 0.01,
            "compile_seconds": 0.0,
            "ratio": 2.0,
            "quartiles": [1.9, 2.1],
            "loss": 0.5,
        },
        "slow": {"run_seconds": 0.2, "ratio": 0.1, "quartiles": [0.09, 0.11]},
    }
    untimed = {"times": {"ours": {"run_seconds": 0.0}}, "gigabytes": 1.5}
    cases = {"a case": {"times": times, "bound": "must be <= 1"}, "memory": untimed}
    page = tables.pages({"fitting": {**pairs.here(), "cases": cases}})
    rows = [
        line for line in page["index"].splitlines() if line.startswith("| [fitting")
    ]
    assert rows == [
        "| [fitting](fitting.md) | a case | slow | 0.1 | faster |",
        "| [fitting](fitting.md) | a case | quick | 2 | slower |",
    ]
    body = page["fitting"]
    assert "| quick | 10.00 ms |  | 2 | 1.9 to 2.1 | 0.5 |" in body
    assert "| phihat | 20.00 ms | 1.50 s |  |  | 0.25 |" in body
    assert "bound" not in body
    assert body.count("| run | compile |") == 1
    assert body.endswith("## memory\n\n- gigabytes: 1.5\n")
    assert "Measured on " in body


def test_the_command_knows_every_module(capsys):
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out.split()
    modules = {path.stem for path in command.HERE.glob("bench_*.py")}
    assert {f"bench_{name}" for name in listed} == modules | {"bench_profile"}
    with pytest.raises(SystemExit):
        command.main(["no_such_part"])
    assert "no such part: no_such_part" in capsys.readouterr().err


def test_a_part_at_its_limit_is_interrupted_and_told():
    assert command.run(["-c", "pass"], 60.0) == "done"
    assert command.run(["-c", "raise SystemExit(3)"], 60.0) == "exit status 3"
    slow = "import time; time.sleep(60)"
    assert command.run(["-c", slow], 0.5) == "ended at its limit of 0.5 s"


def test_the_page_of_a_profile():
    runs = {"booth": {"one": [4, None], "two": [2, 8]}}
    document = {**pairs.here(), "seconds": 3.0, "budget": 9, "late": ["wood"]}
    page = tables.pages({"profile": {**document, "runs": runs}})["profile"]
    assert "| one | 50% | 50% | 4 | 0% |" in page
    assert "| two | 100% | 100% | 5 | 100% |" in page
    assert "| booth | 1 | 2 |" in page
    assert "Runs solved, of 2:" in page
    assert "It took 3 s. Not begun in that time: wood." in page


def test_a_profile_is_the_share_solved_within_a_ratio():
    costs = np.asarray([[10.0, 20.0, np.inf], [20.0, 10.0, np.inf], [10.0, np.inf, 5]])
    grid, shares = profile.profile(costs)
    assert grid.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(shares, np.array([[1, 2], [1, 2], [2, 2]]) / 3)


def test_evaluations_are_counted():
    problem = problems.booth()
    solvers = {
        "descent": profile.ours(lambda: phihat.gradient_descent(0.05)),
        "SciPy": profile.SOLVERS["SciPy trust-exact"],
        "never": lambda loss: lambda start: loss.count(np.inf),
    }
    found = profile.measure(problem, solvers)
    for start, cost in zip(profile.starts_of(problem), found["descent"], strict=True):
        # Along the axes (1, 1) and (1, -1) the curvatures are 18 and 2.
        offset = np.array([[1.0, 1.0], [1.0, -1.0]]) @ (start - [1.0, 3.0]) / 2**0.5
        times = np.arange(300)[:, None]
        path = offset * (1 - 0.05 * np.array([18.0, 2.0])) ** times
        values = 0.5 * path**2 @ [18.0, 2.0]
        assert cost == 1 + np.argmax(values <= profile.SHARE * values[0])
    assert all(3 <= cost <= 60 for cost in found["SciPy"])
    assert found["never"] == [None] * profile.NUM_STARTS


def test_the_starts_are_those_of_the_box():
    problem = problems.branin()
    starts = profile.starts_of(problem)
    assert starts.shape == (profile.NUM_STARTS, 2)
    assert starts[0].tolist() == problem.start.tolist()
    assert ((starts >= problem.box.low) & (starts <= problem.box.high)).all()


def test_durations_in_words():
    assert re.fullmatch(r"1\.50 ms", pairs.in_words(1.5e-3))
    assert pairs.in_words(2.0) == "2.00 s"
