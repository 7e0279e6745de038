"""What results show: in a notebook one table, in a terminal no long arrays."""

import html.parser

import jax
import jax.numpy as jnp
import pytest

import phihat
from phihat import curvature, datasets, losses, models
from phihat._core import tables

LINE = losses.least_squares(models.linear)
DATA = datasets.linear_regression()
START = {"weight": 0.0, "bias": 0.0}
RATES = jnp.array([0.001, 0.25])
RANGE = jnp.array([0.001, 0.01, 0.1, 1.0])


def a_fit():
    return phihat.fit(LINE, START, phihat.newton(), DATA, num_steps=8)


def final_loss(rate):
    return {"loss": phihat.fit(LINE, START, phihat.adam(rate), DATA, num_steps=3).loss}


def a_curve():
    model = lambda p, x: p["slope"] * x
    return phihat.fit_curve(model, [1, 2, 3], [2.1, 3.9, 6.2], {"slope": 1})


# What makes it, and the cells that its table must have, among others.
SHOWN = {
    "FitResult": (a_fit, ["loss", "params"]),
    "CurveFit": (a_curve, ["param", "slope", " %"]),
    "CurveFits": (
        lambda: phihat.fit_curves(
            lambda p, x: p["slope"] * x, [1, 2], [[1, 2], [2, 4]], {"slope": 1}
        ),
        ["slope"],
    ),
    "ConfidenceIntervals": (
        lambda: phihat.confidence_intervals(LINE, a_fit(), DATA),
        ["['bias']", "0.826", "low"],
    ),
    "ConvexityReport": (
        lambda: phihat.check_convexity(LINE, START, DATA),
        ["because", "every step follows a rule that keeps convexity"],
    ),
    "Optimizer": (lambda: phihat.adam(RATES), ["learning_rate", "[2]", "b1", "0.9"]),
    "Box": (
        lambda: phihat.Box({"<a>": 0.0}, {"<a>": jnp.inf}),
        ["['<a>']", "low", "0.0", "inf"],
    ),
    "SweepResult": (
        lambda: phihat.sweep(final_loss, {"rate": RATES}),
        ["loss", "best at rate=0.25"],
    ),
    "LearningRateRange": (
        lambda: phihat.learning_rate_range(
            LINE, START, phihat.gradient_descent, DATA, rates=RANGE, num_steps=10
        ),
        ["largest stable", "suggestion"],
    ),
    "Optima": (
        lambda: phihat.multistart(
            lambda p: p**4 - p**2, phihat.Box(-2.0, 2.0), phihat.adam(0.1), num_starts=4
        ),
        ["loss", "share", "MINIMUM", "50.0%"],
    ),
    "Comparison": (
        lambda: phihat.compare(
            lambda x: x**2, 1.0, {"adam": phihat.adam}, num_steps=3, num_trials=2
        ),
        ["median", "tuned", "adam"],
    ),
}


class _Cells(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.cells: list[str] = []
        self.tables = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tables += tag == "table"
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@pytest.mark.parametrize("kind", SHOWN)
def test_a_notebook_shows_one_table(kind):
    make, wanted = SHOWN[kind]
    value = make()
    assert type(value).__name__ == kind
    page = _Cells(value._repr_html_())
    assert page.tables == 1
    for text in wanted:
        assert any(text in cell for cell in page.cells), (text, page.cells)


SHORT = {
    "ExtremeEigenvalues": lambda: curvature.extreme_eigenvalues(LINE, START, DATA),
    "TraceEstimate": lambda: curvature.estimate_trace(LINE, START, DATA),
    "SpectralDensity": lambda: phihat.spectral_density(LINE, START, DATA),
    "SearchResult": lambda: phihat.bracketing(trace=True)(lambda s: (s - 0.03) ** 2),
}


@pytest.mark.parametrize("kind", SHORT)
def test_a_terminal_shows_no_long_array(kind):
    value = SHORT[kind]()
    assert repr(value).startswith(f"{kind}(")
    assert len(repr(value)) < 300
    traced = []
    jax.jit(lambda value: traced.append(repr(value)) or 0)(value)
    assert traced[0].startswith(f"{kind}(")


def test_a_long_line_of_a_report_is_one_row():
    shown = tables.from_report(
        "Title  here\n  because one\n    and two\n  a = 1   f(a) = 2\n  long name  3"
    )
    page = _Cells(shown)
    cells = ["because", "one and two", "a", "1, f(a) = 2", "long name", "3"]
    assert page.cells == cells
    assert "<b>Title: here</b>" in shown
