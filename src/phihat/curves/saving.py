"""A fitted curve as JSON: its numbers, its data, and not its model."""

import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from phihat.curves.copying import public_fields

__all__ = ["decode", "encode", "load", "save"]

_FORMAT = "phihat.CurveFit"
_VERSION = 1


def save(path: str | os.PathLike[str], fit: Any, problem: Any) -> None:
    """Write a `CurveFit` and the problem that it solved."""
    found = public_fields(fit)
    found["doubts"] = fit.doubts
    found["problem"] = None if problem is None else _arguments(problem)
    text = json.dumps(
        {"format": _FORMAT, "version": _VERSION, "fit": encode(found)}, indent=1
    )
    pathlib.Path(path).write_text(text + "\n", encoding="utf-8")


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a `CurveFit`, its doubts and its problem's arguments."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        found = None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ValueError(
            f"CurveFit.load: {os.fspath(path)!r} does not hold a fitted curve; give a "
            "file that `CurveFit.save` wrote."
        )
    if found.get("version") != _VERSION:
        raise ValueError(
            f"CurveFit.load: {os.fspath(path)!r} has version {found.get('version')}, "
            f"this phihat reads version {_VERSION}."
        )
    return decode(found["fit"])


def encode(value: Any) -> Any:
    """Return what JSON can hold: arrays, tuples and numbers that are not finite too."""
    if isinstance(value, np.ndarray):
        if np.iscomplexobj(value):
            parts = [encode(value.real.tolist()), encode(value.imag.tolist())]
            return {"complex": parts}
        return {"array": encode(value.tolist()), "dtype": value.dtype.str}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(entry)] for key, entry in value.items()]}
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return encode(dict(zip(fields, value, strict=True)))
    if isinstance(value, tuple):
        return {"tuple": [encode(entry) for entry in value]}
    if isinstance(value, list):
        return [encode(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"CurveFit.save: a {type(value).__name__} cannot be saved; params of dicts, "
        "lists, tuples and arrays can."
    )


def decode(value: Any) -> Any:
    """Undo `encode`."""
    if isinstance(value, list):
        return [decode(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(decode(value["array"]), dtype=value["dtype"])
    if "complex" in value:
        real, imaginary = (np.array(decode(part)) for part in value["complex"])
        return real + 1j * imaginary
    if "tuple" in value:
        return tuple(decode(entry) for entry in value["tuple"])
    if "float" in value:
        return float(value["float"])
    return {decode(key): decode(entry) for key, entry in value["dict"]}


def _arguments(problem: Any) -> dict[str, Any]:
    """Return the arguments of `fit_curve` that make this problem again."""
    layout, options = problem.layout, problem.options
    ends = zip(layout.names, *problem.bounds, strict=True)
    return {
        "x": problem.x,
        "y": problem.y,
        "sigma": problem.sigma,
        "absolute_sigma": options.absolute_sigma,
        "bounds": {name: (low, high) for name, low, high in ends},
        "fixed": [
            name
            for name, free in zip(layout.names, layout.free, strict=True)
            if not free
        ],
        "loss": options.loss,
        "f_scale": options.f_scale,
        "nan_policy": options.nan_policy,
        "num_steps": options.num_steps,
        "dtype": str(options.dtype),
    }
