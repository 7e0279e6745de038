"""A process that has imported what scripts need, and forks itself for each of them.

`python tests/fork_server.py` reads a line of JSON for each script, and answers with the
status at which it ended. To import all of it anew would take two seconds a script.
"""

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if not child:
            run(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def run(request: dict) -> None:
    """Run a script here, as `python SCRIPT ARGUMENT ...` does, and end with it."""
    script, *arguments = request["command"]
    closed = os.open(os.devnull, os.O_RDONLY)
    written = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for target, number in ((closed, 0), (written, 1), (written, 2)):
        os.dup2(target, number)
    os.chdir(request["folder"])
    os.environ.update(request["variables"])
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(1, str(ROOT))
    for name in ("matplotlib.pyplot", "optax", "PIL.Image", "scipy.optimize"):
        importlib.import_module(name)

    import phihat
    from tests import flags

    for name in phihat.__all__:
        getattr(phihat, name)
    flags.save_time()
    main()
