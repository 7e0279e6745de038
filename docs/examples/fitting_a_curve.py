"""Fit a curve to a CSV file.

`phihat.fit_curve` takes a table of numbers, a model and a first guess. It fits by
Levenberg-Marquardt in float64. Its report says how well each param is known, how well
the curve fits, and whether there are reasons to doubt the errors.
"""

import sys

import jax.numpy as jnp
import numpy as np

import phihat

# Write a sample file; use your own instead. Its columns are the time, the counts, and
# the standard deviation of the counts.
generator = np.random.default_rng(0)
time = np.linspace(0.0, 10.0, 25)
clean = 100.0 * np.exp(-time / 2.5) + 8.0
sigma = np.sqrt(clean)
rows = np.stack([time, clean + sigma * generator.standard_normal(25), sigma], axis=1)
np.savetxt("decay.csv", rows, delimiter=",", header="time,counts,sigma", fmt="%.3f")

time, counts, sigma = np.loadtxt("decay.csv", delimiter=",", unpack=True)


def decay(params, time):
    return params["height"] * jnp.exp(-time / params["lifetime"]) + params["floor"]


# If your file has no standard deviations, leave out `sigma` and `absolute_sigma`. The
# errors then come from how far the points scatter around the curve.
start = {"height": 50.0, "lifetime": 1.0, "floor": 0.0}
fit = phihat.fit_curve(decay, time, counts, start, sigma=sigma, absolute_sigma=True)
print(fit)
for name, (low, high) in fit.intervals().items():
    print(f"{name} lies between {low:.4g} and {high:.4g} with 95% confidence")

if len(sys.argv) > 1:
    curve, residuals = fit.plot()
    curve.set(ylabel="counts N", title="A decay over a floor")
    residuals.set(xlabel="time t [s]")
    curve.figure.savefig(f"{sys.argv[1]}/decay.png")
