r"""Error bars: how well the data determine the fitted params.

`confidence_intervals` reads them off the curvature at the minimum, or follows the
profile of the loss, and tells what there is to doubt about them.

Example:
  >>> import phihat
  >>> data = phihat.datasets.linear_regression()
  >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
  >>> start = {"weight": 0.0, "bias": 0.0}
  >>> result = phihat.fit(loss_fn, start, phihat.newton(), data, num_steps=9)
  >>> print(phihat.confidence_intervals(loss_fn, result, data))
  95% confidence intervals, from the covariance, Student's t with 10 degrees of freedom
    ['bias']    0.8259 +- 0.0775   0.6533 .. 0.9986
    ['weight']  0.5222 +- 0.06929   0.3678 .. 0.6766
    no reason for doubt was found
"""

from phihat.error_bars.confidence import ConfidenceIntervals, confidence_intervals

__all__ = ["ConfidenceIntervals", "confidence_intervals"]
