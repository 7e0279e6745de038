"""All figures of the chapter "Fitting models".

Each is drawn by calls of phihat alone. Run the script with a folder to save them all:
`python chapter6.py figures`. `FIGURES` maps the name of each to a function that returns
it. The settings are those of the chapter's notebooks, and stochastic gradient descent
draws the same batches as there.
"""

import sys
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import phihat
from phihat import Box, curvature, datasets, losses, models, plot, problems

# Linear regression: f = phi_0 + phi_1 x.
line = Partial(models.polynomial)
line_loss = losses.least_squares(line)
line_data = datasets.linear_regression()
line_start = jnp.asarray([1.6, -0.5])

# The Gabor model of the book: u^2 / 32.
gabor = Partial(models.gabor, envelope_width=4.0)
gabor_loss = losses.least_squares(gabor)
gabor_data = datasets.gabor()
gabor_window = Box([-10.0, 2.5], [10.0, 22.5])

RECORD = ("loss", "params")
NAMES = ("gradient descent", "SGD", "momentum", "Nesterov", "normalized", "Adam")
STYLES = plot.make_styles(NAMES)  # one look in all figures


def notebook_batches(num_steps):
    """The notebooks draw five rows anew at each step, from NumPy's seed 1."""
    generator = np.random.RandomState(1)
    return np.stack([generator.permutation(30)[:5] for _ in range(num_steps)])


@cache
def line_surface():
    return plot.evaluate_surface(line_loss, Box([0.0, -1.0], [2.0, 1.0]), line_data)


@cache
def gabor_surface():
    return plot.evaluate_surface(gabor_loss, gabor_window, gabor_data)


@cache
def gabor_fit(name):
    """SGD alone or with momentum, all from one start and on the same batches."""
    optimizer = {
        "SGD": phihat.gradient_descent(0.6),
        "momentum": phihat.momentum(0.6, 0.6),
        "Nesterov": phihat.nesterov(0.6, 0.6),
    }[name]
    return phihat.fit(
        gabor_loss,
        jnp.asarray([-1.5, 6.5]),
        optimizer,
        gabor_data,
        num_steps=81,
        sampler=phihat.from_indices(notebook_batches(81)),
        record=RECORD,
    )


def loss_function():
    """Three lines, and where their params lie on the loss."""
    points = jnp.asarray([[0.4, 0.2], [1.6, -0.8], [0.82, 0.52]])
    names = [f"φ = ({a:g}, {b:g})" for a, b in points.tolist()]
    left, right = plot.make_axes(1, 2).ravel()
    plot.fitted_model(line, points, line_data, names=names, axes=left)
    paths = {name: point[None] for name, point in zip(names, points, strict=True)}
    plot.loss_surface(line_surface(), paths, axes=right)
    left.title.set_text("Three lines over the data")
    return left.figure


def linear_regression():
    """Gradient descent with a line search at each step, and the lines it passes."""
    search = phihat.steepest_descent(phihat.bracketing(max_step=0.1))
    result = phihat.fit(
        line_loss, line_start, search, line_data, num_steps=10, record=RECORD
    )
    left, _ = plot.surface_and_model(
        line_surface(), line, result, line_data, rows=(0, 1, 2, 4, 10)
    )
    return left.figure


def searched(s):
    """The function on which the notebook shows its line search."""
    wide = 0.5 * jnp.exp(-((s - 0.65) ** 2) / 0.1)
    return 1.0 - wide - 0.45 * jnp.exp(-((s - 0.35) ** 2) / 0.02)


def line_search():
    """The bracket a, b, c, d closes in on the minimum."""
    search = phihat.bracketing(
        max_step=1.0, max_iterations=10, tolerance=1e-4, trace=True
    )
    left, right = plot.make_axes(1, 2).ravel()
    plot.searched_function(searched, search(searched), axes=left)
    plot.bracket(search(searched), axes=right)
    return left.figure


def convex_and_not():
    """A convex loss lies below all its chords; the Gabor loss breaks one."""
    refuted = phihat.refute_convexity(
        gabor_loss, jnp.asarray([0.0, 10.0]), gabor_data, domain=gabor_window
    )
    left, right = plot.make_axes(1, 2).ravel()
    parabola = problems.parabola().loss_fn
    plot.broken_chord(plot.evaluate_chord(parabola, (-1.0, 4.0)), axes=left)
    chord = plot.evaluate_chord(gabor_loss, refuted, gabor_data)
    plot.broken_chord(chord, axes=right)
    return left.figure


def determinant_test():
    """Where the determinant of the Hessian is positive, and where that misleads."""
    found = curvature.convexity_map(gabor_loss, gabor_window, gabor_data)
    left, _ = plot.convexity_map(found)
    return left.figure


def gabor_model():
    """What the offset and the frequency do to the Gabor model."""
    points = jnp.asarray([[0.0, 16.6], [-5.0, 16.6], [0.0, 8.0]])
    names = [f"φ = ({a:g}, {b:g})" for a, b in points.tolist()]
    return plot.fitted_model(gabor, points, gabor_data, names=names).figure


def local_minima():
    """All critical points of the Gabor loss in this window."""
    found = phihat.find_critical_points(gabor_loss, gabor_window, gabor_data)
    axes = plot.loss_surface(gabor_surface())
    return plot.critical_points(found, axes=axes).figure


def descent_and_sgd():
    """Gradient descent ends in the valley it starts in; SGD can leave it."""
    starts = [[-1.5, 8.5], [2.5, 10.0], [3.0, 10.0]]
    search = phihat.steepest_descent(phihat.bracketing(max_step=2.0))
    descents = {
        f"from ({a:g}, {b:g})": phihat.fit(
            gabor_loss,
            jnp.asarray([a, b]),
            search,
            gabor_data,
            num_steps=21,
            record=RECORD,
        )
        for a, b in starts
    }
    noisy = phihat.fit(
        gabor_loss,
        jnp.asarray([3.5, 6.5]),
        phihat.gradient_descent(0.8),
        gabor_data,
        num_steps=41,
        sampler=phihat.from_indices(notebook_batches(41)),
        record=RECORD,
    )
    left, right = plot.make_axes(1, 2).ravel()
    plot.loss_surface(gabor_surface(), descents, axes=left)
    plot.loss_surface(gabor_surface(), {"SGD": noisy}, styles=STYLES, axes=right)
    left.title.set_text("Gradient descent with line search")
    right.title.set_text("Stochastic gradient descent, batches of 5")
    return left.figure


def beside_sgd(name, title):
    left, right = plot.make_axes(1, 2).ravel()
    for axes, shown in ((left, "SGD"), (right, name)):
        results = {shown: gabor_fit(shown)}
        plot.loss_surface(gabor_surface(), results, styles=STYLES, axes=axes)
    left.title.set_text("Stochastic gradient descent")
    right.title.set_text(title)
    return left.figure


def momentum():
    """Momentum averages the gradients of the batches: the path is smoother."""
    return beside_sgd("momentum", "The same with momentum")


def nesterov():
    """Nesterov's momentum measures the gradient where the momentum leads."""
    return beside_sgd("Nesterov", "The same with Nesterov's momentum")


def normalized_and_adam():
    """Where one direction is steep and the other flat, the size of the step matters."""
    problem = problems.adam_surface()
    surface = plot.evaluate_surface(problem.loss_fn, problem.box)
    panels = {
        "Gradient descent, α = 0.08": (phihat.gradient_descent(0.08), 200),
        "Gradient descent, α = 1": (phihat.gradient_descent(1.0), 40),
        "Normalized gradients, α = 0.08": (phihat.normalized_gradient(0.08), 40),
        "Adam, α = 0.05": (phihat.adam(0.05, 0.9, 0.99), 60),
    }
    grid = plot.make_axes(2, 2)
    for axes, (title, (optimizer, num_steps)) in zip(
        grid.ravel(), panels.items(), strict=True
    ):
        result = phihat.fit(
            problem.loss_fn,
            problem.start,
            optimizer,
            num_steps=num_steps,
            record=RECORD,
        )
        plot.loss_surface(surface, result, axes=axes)
        axes.title.set_text(title)
    return grid[0, 0].figure


FIGURES = {
    "loss_function": loss_function,
    "linear_regression": linear_regression,
    "line_search": line_search,
    "convex_and_not": convex_and_not,
    "determinant_test": determinant_test,
    "gabor_model": gabor_model,
    "local_minima": local_minima,
    "descent_and_sgd": descent_and_sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "normalized_and_adam": normalized_and_adam,
}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        figure = draw()
        print(f"{name}: {draw.__doc__.strip()}")
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png")
