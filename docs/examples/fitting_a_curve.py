"""Fit a curve to a CSV file with error bars, and see how well each param is known.

`phihat.fit_curve` takes a table of numbers, a model and a first guess. It fits by
Levenberg-Marquardt in float64. Its report has errors, the quality of the fit, and the
reasons to doubt it.
"""

import sys

import jax.numpy as jnp
import numpy as np

import phihat

# A sample file; use yours: time, counts, and the standard deviation of the counts.
generator = np.random.default_rng(0)
time = np.linspace(0.0, 10.0, 25)
clean = 100.0 * np.exp(-time / 2.5) + 8.0
sigma = np.sqrt(clean)
rows = np.stack([time, clean + sigma * generator.standard_normal(25), sigma], axis=1)
np.savetxt("decay.csv", rows, delimiter=",", header="time,counts,sigma", fmt="%.3f")

time, counts, sigma = np.loadtxt("decay.csv", delimiter=",", unpack=True)


def decay(params, time):
    return params["height"] * jnp.exp(-time / params["lifetime"]) + params["floor"]


# Without sigmas in the file, leave out `sigma` and `absolute_sigma`: then the scatter
# of the points about the curve decides how large the errors are.
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
