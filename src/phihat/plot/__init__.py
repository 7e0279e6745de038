"""Pictures of fits, losses, curvature and sweeps, in matplotlib.

First something is computed, then it is drawn: a function here takes what a call of
phihat returned, or what `evaluate_surface` and its like prepared, and draws it on
`axes`, or on a new figure. It returns the axes: at the end of a notebook cell they show
the picture, and `axes.figure.savefig("fit.png")` saves it. Nothing touches pyplot or
matplotlib's settings. It needs the extra `phihat[plot]`.

Example:
  >>> import phihat
  >>> result = phihat.fit(lambda x: x**2, 1.0, phihat.adam(0.1), num_steps=20)
  >>> axes = phihat.plot.loss_curves({"Adam": result})
  >>> axes.get_xlabel()
  'step t'
"""

from phihat.plot.animations import animate_bracket, animate_descent
from phihat.plot.canvas import make_axes
from phihat.plot.chords import Chord, broken_chord, evaluate_chord
from phihat.plot.curves import Curve, loss_curves, prepare_curves
from phihat.plot.fitted import evaluate_model, fitted_model, surface_and_model
from phihat.plot.grids import sweep_map, sweep_slices, trainability
from phihat.plot.landscapes import loss_surface
from phihat.plot.paths import trajectories
from phihat.plot.planes import principal_plane, random_plane
from phihat.plot.regions import basins, convexity_map, critical_points
from phihat.plot.searches import Rounds, bracket, prepare_rounds, searched_function
from phihat.plot.spectra import sharpness, spectral_density
from phihat.plot.styles import Style, make_styles
from phihat.plot.surfaces import Surface, evaluate_surface
from phihat.plot.tuning import comparison, learning_rate_range

__all__ = [
    "Chord",
    "Curve",
    "Rounds",
    "Style",
    "Surface",
    "animate_bracket",
    "animate_descent",
    "basins",
    "bracket",
    "broken_chord",
    "comparison",
    "convexity_map",
    "critical_points",
    "evaluate_chord",
    "evaluate_model",
    "evaluate_surface",
    "fitted_model",
    "learning_rate_range",
    "loss_curves",
    "loss_surface",
    "make_axes",
    "make_styles",
    "prepare_curves",
    "prepare_rounds",
    "principal_plane",
    "random_plane",
    "searched_function",
    "sharpness",
    "spectral_density",
    "surface_and_model",
    "sweep_map",
    "sweep_slices",
    "trainability",
    "trajectories",
]
