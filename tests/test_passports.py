"""The passports: complete, true within their bounds, and their pages up to date."""

import importlib.util
import json

import numpy as np
import pytest

import phihat
from benchmarks import passports
from phihat import line_searches, optimizers, second_order

REFERENCES = [
    (name, reference)
    for name, references in passports.PASSPORTS.items()
    for reference in references
]
FITS_WHOLE = ("newton", "newton_cg", "levenberg_marquardt", "steepest_descent")


def committed():
    return json.loads((passports.PAGES / "passports.json").read_text())


def test_every_optimizer_has_a_passport():
    modules = (optimizers, line_searches, second_order)
    names = {name for module in modules for name in module.__all__}
    no_optimizers = {"eval_params", "covariance", "line_search", "strong_wolfe"}
    no_optimizers |= {"backtracking", "bracketing", "golden_section"}
    factories = {name for name in names if name[0].islower()} - no_optimizers
    assert factories == set(passports.PASSPORTS)
    assert all(callable(getattr(phihat, name)) for name in factories)


@pytest.mark.parametrize(("name", "reference"), REFERENCES)
def test_a_part_measured_anew_is_within_the_bounds(name, reference):
    entry = passports.PASSPORTS[name][reference]
    # A whole fit compiles for longer than a step.
    dtypes = ("float64",) if name in FITS_WHOLE else passports.DTYPES
    case = "adam_surface" if "adam_surface" in entry.cases else entry.cases[0]
    if "torch" in reference and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is in the extra `peers`")
    found = passports.measure(entry, (case,), dtypes)
    for dtype, bound in zip(passports.DTYPES, entry.bounds, strict=True):
        if dtype in dtypes:
            assert found[case][dtype] <= bound


def test_the_committed_numbers_are_within_the_bounds():
    measured = committed()["passports"]
    assert [
        (name, reference)
        for name, references in measured.items()
        for reference in references
    ] == REFERENCES
    for name, reference in REFERENCES:
        entry, found = passports.PASSPORTS[name][reference], measured[name][reference]
        assert set(found) == set(entry.cases)
        for distances in found.values():
            pairs = zip(passports.DTYPES, entry.bounds, strict=True)
            assert all(distances[dtype] <= bound for dtype, bound in pairs)


def test_the_committed_pages_are_those_of_the_committed_numbers():
    """Cured by `python -m benchmarks.passports --pages`."""
    expected = passports.pages(committed())
    folder = {path.stem: path for path in passports.PAGES.glob("*.md")}
    assert set(folder) == set(expected)
    for name, page in expected.items():
        assert folder[name].read_text(encoding="utf-8") == page


def test_ulps_count_in_the_last_place():
    path = np.asarray([[1.0, 2.0], [4.0, -0.5]])
    other = path + np.asarray([[0.0, 0.0], [0.0, 3 * np.spacing(4.0)]])
    assert passports.ulps(other, path, "float64") == 3.0
    assert passports.ulps(path, path, "float32") == 0.0
    wrong = passports.by_book(lambda g, m, t: (1.001 * g, m))("gabor", "float64")
    right = passports.by_book(passports.plain_rule)("gabor", "float64")
    assert passports.ulps(wrong, right, "float64") > 1e9
