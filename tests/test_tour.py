"""The tour says what is true, draws what can be read, and fails politely."""

import struct
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import phihat
from phihat import _tour, datasets
from phihat.__main__ import main
from phihat._tour.tasks import prepare
from tests import as_user
from tests.cases import REFERENCE

PROBLEMS, TASKS = _tour.PROBLEMS, {task.name: task for task in _tour.TASKS}


def table_rows(text: str) -> dict[str, list[str]]:
    """Return the cells of all tables by the first, which may be of two words."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines]
    return {row[0]: row[1:] for row in cells}


# -------------------------------------------------------------------- the whole tour


def test_the_tour_as_a_user_takes_it(tmp_path):
    """One test, since the tour takes as long as many: it is taken only once."""
    folder = tmp_path / "new" / "pictures"
    done = subprocess.run(
        [sys.executable, "-m", "phihat", "--out", str(folder)],
        env=as_user.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "it/s" not in done.stderr  # progress is for terminals
    parabola, linear_regression, gabor, tasks = sections(done.stdout)
    check_parabola(parabola)
    check_linear_regression(linear_regression)
    check_gabor(gabor)
    check_tasks(tasks)
    check_pictures(folder, done.stdout.splitlines()[-1])


def sections(text: str) -> list[str]:
    """Return the text from each underlined title to the next."""
    lines = text.splitlines()
    starts = [i - 1 for i, line in enumerate(lines) if line and set(line) == {"="}]
    ends = [*starts[1:], len(lines)]
    return ["\n".join(lines[i:j]) for i, j in zip(starts, ends, strict=True)]


def check_parabola(text: str) -> None:
    rows = table_rows(text)
    for x in (-1, 0, 1, 2, 3, 4):
        assert rows[str(x)] == [str(x * x - 4 * x + 5), *[str(2 * x - 4)] * 2]
    assert "came to x = 2.000, where y = 1.000" in text


def check_linear_regression(text: str) -> None:
    rows = table_rows(text)
    facts = REFERENCE["linear_regression_facts"]
    end = "({:.2f}, {:.2f})".format(*facts["optimum"])
    for name in set(PROBLEMS["linear regression"].settings) - {"normalized"}:
        _, start, steps, loss, status, found, _ = rows[name]
        assert (start, status, found) == ("(1.60, -0.50)", "CONVERGED", end)
        assert loss == f"{facts['min_loss']:.4f}"
        assert int(steps) < 200
    assert rows["normalized"][4] == "COMPLETED"
    low, high = facts["eig"]
    assert f"{low:.2f} and {high:.1f}" in text


def check_gabor(text: str) -> None:
    rows = table_rows(text)
    assert set(PROBLEMS["gabor"].settings) < set(rows)
    minima = [
        point
        for point in REFERENCE["gabor_stationary_points_D32"]["points"]
        if point["type"] == "min"
    ]
    ends = {"({:.2f}, {:.2f})".format(*point["phi"]) for point in minima}
    assert rows["gradient descent"][4] == "CONVERGED"
    assert rows["gradient descent"][5] in ends
    lowest = min(point["loss"] for point in minima)
    for name in ("momentum", "Nesterov", "Adam"):
        assert rows[name][3:5] == [f"{lowest:.4f}", "CONVERGED"]


def check_tasks(text: str) -> None:
    models, fits = text.split("\n\n")[:2]
    for name, task in TASKS.items():
        num_rows = len(task.load()[1])
        *_, fitted, held_out = table_rows(models)[name]
        assert int(held_out) == (round(num_rows / 5) if task.has_held_out else 0)
        assert int(fitted) + int(held_out) == num_rows
    rows = table_rows(fits)
    assert rows["linnerud"][-1] == "none"
    scores = {name: float(rows[name][-1]) for name in set(TASKS) - {"linnerud"}}
    assert scores["diabetes"] > 0.4
    assert scores["breast cancer"] > 0.95
    assert scores["digits"] > 0.95


def check_pictures(folder: Path, last_line: str) -> None:
    pictures = sorted(folder.iterdir())
    assert [path.stem for path in pictures] == sorted(_tour.PICTURES)
    assert last_line == f"The 4 pictures are in {folder}"
    for path in pictures:
        header = path.read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", header[16:]) == (1600, 900)


# -------------------------------------------------------------------- its parts


def least_squares_scores(penalty: float, data, held_out) -> list[float]:
    """Return R^2 of the exact solution, by the normal equations."""
    parts = [tuple(map(np.asarray, one)) for one in (data, held_out) if one is not None]
    x, y = parts[0]
    gram = x.T @ x / len(x) + penalty * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, x.T @ y / len(x))
    errors = [((b - a @ weight) ** 2).sum(0) for a, b in parts]
    spreads = [((b - b.mean(0)) ** 2).sum(0) for _, b in parts]
    return [float(np.mean(1 - e / s)) for e, s in zip(errors, spreads, strict=True)]


@pytest.mark.parametrize(("name", "penalty"), [("diabetes", 0.0), ("linnerud", 0.1)])
def test_regressions_score_as_the_exact_solution(name, penalty):
    task = TASKS[name]
    outcome = _tour.carry_out(task)
    exact = least_squares_scores(penalty, *prepare(task.load(), task.has_held_out))
    # A gradient below 1e-3 leaves the params within 1e-3 / the least curvature, .02.
    assert outcome.status == "CONVERGED"
    assert [one for one in outcome.scores if one is not None] == pytest.approx(
        exact, abs=0.02
    )


def test_the_command_tells_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"phihat {phihat.__version__}\n"


def test_held_out_rows_do_not_shape_the_scale():
    x, y = datasets.breast_cancer()
    (train, labels), (held_out, _) = prepare((x, y))
    assert labels.dtype == y.dtype
    np.testing.assert_allclose(np.mean(train, axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.std(train, axis=0), 1.0, atol=1e-12)
    assert np.abs(np.mean(held_out, axis=0)).max() > 1e-3


@pytest.fixture
def runs() -> dict[str, list[_tour.Run]]:
    """Make runs of the shapes that fits have, without any fitting."""
    steps = np.linspace(1.0, 0.0, 31)
    made = {"parabola": [_tour.Run("gradient descent", steps, steps, "", 0.0)]}
    for name, problem in PROBLEMS.items():
        path = np.outer(steps, problem.start)
        made[name] = [
            _tour.Run(optimizer, path, 0.5 + steps, "", 0.0)
            for optimizer in problem.settings
        ]
    return made


@pytest.mark.parametrize("name", _tour.PICTURES)
def test_pictures_are_legible_and_leave_no_trace(name, runs, tmp_path, monkeypatch):
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(Figure, "savefig", keep)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    before = settings()
    assert _tour.draw(name, runs, tmp_path) == tmp_path / f"{name}.png"
    assert settings() == before

    (figure,) = drawn
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            assert axes.get_title()
            assert axes.get_xlabel()
        assert axes.get_ylabel()
    for text in figure.findobj(Text):
        assert text.get_fontsize() >= 14 or not text.get_text(), text
    # All that is drawn, in inches, lies on the slide of 16 by 9.
    drawn_box = figure.get_tightbbox()
    assert min(drawn_box.x0, drawn_box.y0, 16 - drawn_box.x1, 9 - drawn_box.y1) >= 0


def settings() -> dict:
    """Return matplotlib's; to read the backend would be to choose one, by pyplot."""
    names = set(matplotlib.rcParams) - {"backend"}
    return {name: matplotlib.rcParams[name] for name in names}


def test_losses_along_a_path_are_those_of_all_data():
    problem = PROBLEMS["linear regression"]
    run = _tour.solve(problem, "gradient descent")
    x, y = map(np.asarray, problem.data)
    residuals = run.path[:, :1] + run.path[:, 1:] * x - y
    exact = np.sum(residuals**2, axis=1)
    np.testing.assert_allclose(run.losses, exact, rtol=64 * np.finfo(float).eps)
    assert run.score == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-6)


# -------------------------------------------------------------------- what may fail


@pytest.mark.parametrize("below", [".", "pictures"])
def test_a_folder_that_cannot_be_written(below, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(SystemExit) as error:
        main(["--out", str(path / below)])
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"--out: cannot write to {path / below}: " in printed.err


def test_without_extras_it_names_the_cure_and_does_the_rest(
    tmp_path, monkeypatch, capsys
):
    for missing in ("matplotlib", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, missing, None)
    for name, problem in PROBLEMS.items():  # one fit of each is enough here
        setting = {"momentum": problem.settings["momentum"]}
        monkeypatch.setitem(PROBLEMS, name, problem._replace(settings=setting))
    monkeypatch.chdir(tmp_path)
    main([])
    printed = capsys.readouterr().out
    assert [text.splitlines()[0].split(":")[0] for text in sections(printed)] == [
        "Parabola",
        "Fit of linear regression",
        "Fit of the Gabor model",
    ]
    assert 'pip install "phihat[examples]"' in printed
    assert printed.splitlines()[-1].endswith('`pip install "phihat[plot]"`.')
    assert list(tmp_path.iterdir()) == []


def test_runs_are_the_same_each_time():
    first, second = (_tour.solve(PROBLEMS["gabor"], "SGD") for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
