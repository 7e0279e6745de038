"""People with any kind of colour blindness can tell the colours apart."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import TABLEAU_COLORS, to_rgb

from phihat.plot.styles import OKABE_ITO

# Machado, Oliveira and Fernandes 2009, at full severity, on linear RGB.
SEEN_BY = {
    "everybody else": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]
WHITE = np.array([0.95047, 1.0, 1.08883])


def seen(colors, kind):
    """Return the colours as they are seen, in CIELAB: lightness first."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.transpose(SEEN_BY[kind]), 0, 1) @ np.transpose(TO_XYZ)
    t = xyz / WHITE
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def nearest(colors, kind):
    """Return the smallest distance of two colours; 2 is just noticeable."""
    places = seen(colors, kind)
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    return distances[~np.eye(len(places), dtype=bool)].min()


@pytest.mark.parametrize("kind", SEEN_BY)
def test_no_two_colors_look_alike(kind):
    assert nearest(OKABE_ITO, kind) > 15


def test_colors_that_look_alike_are_noticed():
    """matplotlib's own cycle has a red and a green that become the same brown."""
    cycle = list(TABLEAU_COLORS)[: len(OKABE_ITO)]
    assert nearest(cycle, "everybody else") > 15
    assert nearest(cycle, "protanopia") < 5


@pytest.mark.parametrize("kind", SEEN_BY)
@pytest.mark.parametrize("name", ["cividis", "viridis"])
def test_maps_rise_in_lightness(name, kind):
    steps = matplotlib.colormaps[name](np.linspace(0, 1, 20))
    assert (np.diff(seen(steps, kind)[:, 0]) > 0).all()
