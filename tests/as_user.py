"""Run Python in a process of its own, with the flags that a user has.

But for those by which XLA compiles quickly, and for the cache of what it compiles.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import flags

__all__ = ["ROOT", "run_as_user"]

ROOT = Path(__file__).resolve().parents[1]


def run_as_user(*arguments: object, cwd: Path = ROOT, **variables: str) -> None:
    """Run `python ARGUMENT ...`, and fail with what it said where it fails."""
    command = [*map(str, arguments)]
    if command[0].endswith(".py"):
        status, said = _run_in_fork(command, cwd, variables)
    else:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=environment() | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        status, said = done.returncode, f"{done.stdout}\n{done.stderr}"
    if status:
        pytest.fail(said.strip(), pytrace=False)


def environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "PYTEST_")) and name != "XLA_FLAGS"
    }
    cache = {name.upper(): str(value) for name, value in flags.CACHE.items()}
    return {**kept, **cache, "XLA_FLAGS": flags.QUICK}


def _run_in_fork(command: list[str], cwd: Path, variables: dict[str, str]):
    """Run a script in a fork of a process that has imported what scripts need."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        request = {
            "command": command,
            "folder": str(cwd),
            "output": str(output),
            "variables": variables,
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return status, output.read_text(encoding="utf-8", errors="replace")


@functools.cache
def _server() -> subprocess.Popen:
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "fork_server.py"],
        env=environment() | {"MPLBACKEND": "agg"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)  # it ends where its input does
    return server
