"""Fit a curve to a CSV file with error bars, and tell how well each param is known.

Levenberg-Marquardt fits least squares in a few steps. Weights of 1 / sigma^2 make the
loss a chi-square, whose curvature at the minimum tells the intervals of the params.
"""

import sys

import jax.numpy as jnp
import numpy as np

import phihat
from phihat import losses

# A file that stands for yours: time, counts and the standard deviation of the counts.
generator = np.random.default_rng(0)
time = np.linspace(0.0, 10.0, 25)
clean = 100.0 * np.exp(-time / 2.5) + 8.0
sigma = np.sqrt(clean)
rows = np.stack([time, clean + sigma * generator.standard_normal(25), sigma], axis=1)
np.savetxt("decay.csv", rows, delimiter=",", header="time,counts,sigma", fmt="%.3f")

time, counts, sigma = np.loadtxt("decay.csv", delimiter=",", unpack=True)


def decay(params, time):
    return params["height"] * jnp.exp(-time / params["lifetime"]) + params["floor"]


loss_fn = losses.least_squares(decay, weights=1 / sigma**2)
start = {"height": 50.0, "lifetime": 1.0, "floor": 0.0}
data = (time, counts)
result = phihat.fit(
    loss_fn, start, phihat.levenberg_marquardt(), data, num_steps=50, tolerance=1e-3
)
status = phihat.Status(int(result.status)).name
print(f"{status} after {result.num_steps} steps")
print(f"chi-square {result.loss:.1f} for {len(time) - len(start)} degrees of freedom")

# Without sigmas in the file, leave out the weights and `absolute_sigma`: the scatter of
# the points about the curve then tells how far they may be off.
print(phihat.confidence_intervals(loss_fn, result, data, absolute_sigma=True))

if len(sys.argv) > 1:
    axes = phihat.plot.fitted_model(decay, result, data)
    axes.errorbar(time, counts, sigma, fmt="none", ecolor="0.4", zorder=1)
    axes.set(xlabel="time t [s]", ylabel="counts N", title="A decay over a floor")
    axes.figure.savefig(f"{sys.argv[1]}/decay.png")
