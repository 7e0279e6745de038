"""The tour, `python -m phihat [--out DIR]`: the chapter's fits, real data, pictures."""

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from phihat import __version__, _tour

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the tour: print the tables, and draw the pictures.

    Args:
      arguments: those of the command line, by default.

    Raises:
      SystemExit: the arguments are wrong, or the folder cannot be written.
    """
    folder = _folder(arguments)
    num_fits = 1 + len(_tour.TASKS)
    num_fits += sum(len(problem.settings) for problem in _tour.PROBLEMS.values())
    num_pictures = len(_tour.PICTURES) if folder else 0
    with (
        # Most of the time goes into compiling, outside of Python's lock.
        ThreadPoolExecutor(os.cpu_count()) as pool,
        # On standard error, and nowhere where that is no terminal.
        tqdm(total=num_fits + num_pictures, disable=None, leave=False) as bar,
    ):

        def begin(work: Callable[..., Any], *inputs: Any) -> Future[Any]:
            future = pool.submit(work, *inputs)
            future.add_done_callback(lambda _: bar.update())
            return future

        descent = begin(_tour.parabola_run)
        fits = {
            name: [begin(_tour.solve, problem, setting) for setting in problem.settings]
            for name, problem in _tour.PROBLEMS.items()
        }
        tasks = [begin(_tour.carry_out, task) for task in _tour.TASKS]

        runs = {"parabola": [descent.result()]}
        bar.write(_tour.parabola_report(runs["parabola"][0]))
        for name, futures in fits.items():
            runs[name] = [future.result() for future in futures]
            bar.write(_tour.problem_report(name, runs[name]))
        if folder:
            for name in _tour.PICTURES:
                _tour.draw(name, runs, folder)
                bar.update()
        try:
            outcomes = [task.result() for task in tasks]
            bar.write(_tour.tasks_report(_tour.TASKS, outcomes))
        except ImportError as error:
            bar.write(f"The four real tasks are left out. {error}\n")
        if folder:
            bar.write(f"The {num_pictures} pictures are in {folder.resolve()}")
        else:
            bar.write(
                "The pictures are left out. They need matplotlib; install it with "
                '`pip install "phihat[plot]"`.'
            )


def _folder(arguments: Sequence[str] | None) -> Path | None:
    """Return the writable folder of the pictures; None without matplotlib."""
    parser = argparse.ArgumentParser(
        prog="python -m phihat",
        description='Fit the models of the chapter "Fitting models" and four sets of '
        "real data; print how each fit went, and draw it.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("phihat-tour"),
        metavar="DIR",
        help="the folder for the pictures (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"phihat {__version__}")
    folder = parser.parse_args(arguments).out
    if importlib.util.find_spec("matplotlib") is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        parser.error(f"--out: cannot write to {folder}: {error.strerror}.")
    return folder


if __name__ == "__main__":
    main()
