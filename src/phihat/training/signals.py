"""Ctrl-C and SIGTERM, noticed between steps instead of in their midst."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Watcher", "tell_user", "watch"]


def tell_user(text: str) -> None:
    """Write a line for the one who sits there; no output is no reason to fail."""
    # A handler may interrupt a write to the same stream, which Python forbids.
    with contextlib.suppress(RuntimeError, OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Watcher:
    """What was received: the name of the first signal, or None."""

    def __init__(self) -> None:
        """Nothing was, so far."""
        self.received: str | None = None

    def notice(self, number: int, frame: Any) -> None:
        """Keep the signal; a second Ctrl-C ends at once, as it always did."""
        del frame
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        again = " Ctrl-C once more ends at once." if number == signal.SIGINT else ""
        tell_user(
            f"train: {self.received}: the fit ends after the steps under way.{again}"
        )


@contextlib.contextmanager
def watch() -> Iterator[Watcher]:
    """Notice SIGINT and SIGTERM while the block runs, then put all back as it was.

    Only the main thread can receive signals; elsewhere nothing is changed.
    """
    watcher = Watcher()
    if threading.current_thread() is not threading.main_thread():
        yield watcher
        return
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, watcher.notice)
        yield watcher
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
