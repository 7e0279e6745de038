"""Curves: fit them to tables of numbers, and report the params with their errors.

`fit_curve` fits one curve, `fit_curves` thousands at once. Both take lists, NumPy and
pandas, compute in float64 and return NumPy.

Example:
  >>> from phihat.curves import fit_curve
  >>> line = lambda params, x: params["slope"] * x + params["offset"]
  >>> fit = fit_curve(line, [0, 1, 2, 3], [1, 3, 5, 7], {"slope": 1, "offset": 0})
  >>> print(f"{fit.params['slope']:.4f} {fit.params['offset']:.4f}")
  2.0000 1.0000
"""

from phihat.curves.many import fit_curves
from phihat.curves.many_results import CurveFits
from phihat.curves.result import Bands, CurveFit
from phihat.curves.single import fit_curve

__all__ = ["Bands", "CurveFit", "CurveFits", "fit_curve", "fit_curves"]
