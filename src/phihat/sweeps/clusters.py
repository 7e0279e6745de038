"""Which of many points are the same: deterministic, best first."""

import numpy as np

__all__ = ["label"]


def label(
    points: np.ndarray, losses: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Group points around the best of each group, by the largest coordinate distance.

    The best point that is left founds a group, and all within `distance` join it; so
    groups are sorted by loss, and the order of the points does not matter.

    Returns:
      The group of every point [N], and the founder of every group [K].
    """
    order = np.lexsort((*points.T[::-1], losses))
    points = points[order]
    labels = np.full(len(points), -1)
    founders = []
    while (left := np.flatnonzero(labels < 0)).size:
        first = left[0]
        near = np.max(np.abs(points[left] - points[first]), axis=1) <= distance
        labels[left[near]] = len(founders)
        founders.append(order[first])
    unsorted = np.empty_like(labels)
    unsorted[order] = labels
    return unsorted, np.asarray(founders, int)
