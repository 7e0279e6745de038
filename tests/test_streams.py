"""Streams that misbehave: the fit ends with the cause, or uses what is right."""

import asyncio
import ctypes
import os
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from phihat import Status
from phihat.training import streams


def first_entry(params, batch):
    """A loss that tells which batch it saw."""
    return jnp.ravel(batch)[0] + 0.0 * jnp.sum(params)


def train(data, num_steps=12, **settings):
    optimizer = phihat.gradient_descent(0.0)
    return phihat.train(
        first_entry, 0.0, optimizer, data, num_steps=num_steps, **settings
    )


def numbered(count, shape=(8,)):
    for number in range(count):
        yield np.full(shape, float(number))


def seen(result):
    return np.asarray(result.history["loss"]).astype(int).tolist()


# ------------------------------------------------------------------- what goes well


@pytest.mark.parametrize("megabytes", [1, 2, 5])
def test_batches_of_any_size(megabytes):
    shape = (megabytes * 2**17 + 3,)  # a little more than so many megabytes
    assert seen(train(numbered(4, shape), num_steps=4)) == [0, 1, 2, 3]


def refilled(shape=(1000, 4)):
    buffer = np.zeros(shape)
    for number in range(100):
        buffer[:] = number
        yield buffer


class Refilled:
    """An iterator that fills one buffer, which its caller could keep."""

    def __init__(self):
        self.buffer, self.number = np.zeros((300_000,)), -1

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        self.buffer[0] = self.number
        return self.buffer


def refilled_tensors():
    torch = pytest.importorskip("torch")
    buffer = torch.zeros(50, dtype=torch.float64)
    for number in range(100):
        buffer.fill_(number)
        yield buffer


@pytest.mark.parametrize("make", [refilled, Refilled, refilled_tensors])
def test_a_buffer_that_is_refilled_is_copied_when_it_is_read(make):
    assert seen(train(make())) == list(range(12))


def test_a_position_that_is_changed_later_is_copied_too():
    class Telling:
        def __init__(self):
            self.state = {"number": 0}

        def __iter__(self):
            for number in range(100):
                self.state["number"] = number + 1
                yield np.full(3, float(number))

        def get_state(self):
            return self.state

    stream = streams.Stream("train", Telling(), passes=1, asks_state=True)
    batches = stream.read(timeout=10.0)
    stream.close()
    assert batches is not None
    told = [place.own_state["number"] for place in batches.places]
    assert told == list(range(1, len(told) + 1))


# ------------------------------------------------------- what is raised ends the fit


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no text")


def after(count, error):
    yield from numbered(count)
    raise error


class BadIterator:
    def __iter__(self):
        raise OSError("no such loader")


class NoIterator:
    def __iter__(self):
        return 3


class Poisoned:
    def __iter__(self):
        return iter([Poisoned()])

    def __array__(self, *arguments, **named):
        raise MemoryError("too large")


RAISING = {
    "CancelledError": lambda: after(3, asyncio.CancelledError()),
    "SystemExit": lambda: after(3, SystemExit(2)),
    "KeyboardInterrupt": lambda: after(3, KeyboardInterrupt()),
    "GeneratorExit": lambda: after(3, GeneratorExit()),
    "StopIteration": lambda: after(3, StopIteration()),
    "MemoryError": lambda: after(3, MemoryError()),
    "OSError": lambda: after(3, OSError("gone")),
    "UnicodeDecodeError": lambda: after(
        3, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
    ),
    "an exception without a text": lambda: after(3, Unprintable()),
    "the first batch": lambda: after(0, RuntimeError("at once")),
    "iter": BadIterator,
    "no iterator": NoIterator,
}


@pytest.mark.parametrize("kind", RAISING)
def test_whatever_a_stream_raises_ends_the_fit_with_its_cause(kind):
    with pytest.raises(RuntimeError, match=r"^train: `data` raised") as caught:
        train(RAISING[kind]())
    assert caught.value.__cause__ is not None


def masked():
    yield np.ma.masked_array(np.ones(3), mask=[True, False, False])


BAD = {
    "masked": (masked, "holds a masked array"),
    "no rows": (lambda: iter([np.ones((0, 3))]), "has no rows"),
    "objects": (lambda: iter([np.array([1.0, "a"], object)]), "has dtype object"),
    "records": (lambda: iter([np.zeros(3, "f8,i4")]), "which is not numeric"),
    "texts": (lambda: iter(["abc"]), "which is not an array"),
    "another structure": (lambda: iter([np.ones(2), (np.ones(2),)]), "structure"),
    "an array that cannot be made": (lambda: Poisoned(), "which is not an array"),
    "None": (lambda: iter([None]), "has no arrays in it"),
    "a deleted array": (lambda: iter([deleted()]), "has been deleted"),
    "keys that cannot be sorted": (
        lambda: iter([{1: np.ones(2), "a": np.ones(2)}]),
        "is not a pytree of arrays",
    ),
}


def deleted():
    array = jnp.ones(3)
    array.delete()
    return array


@pytest.mark.parametrize("kind", BAD)
def test_a_batch_that_is_none_is_refused_by_a_sentence(kind):
    make, message = BAD[kind]
    with pytest.raises((TypeError, ValueError), match=f"^train: batch .*{message}"):
        train(make())


def test_integers_that_would_wrap_are_refused(user_flags):
    big = np.array([1, 2**40])
    with pytest.raises(ValueError, match=r"integers from 1 to 1099511627776, which do"):
        train(iter([big]))
    assert train(iter([np.array([1, 2])] * 12)).status == Status.COMPLETED


# --------------------------------------------------------------------- nothing hangs


def test_a_reader_that_died_is_noticed():
    """As a fork leaves it, or a thread that was ended from outside."""
    stream = streams.Stream("train", numbered(10**9), passes=1)
    stream.read()
    stream.close()
    assert stream._thread is not None
    stream._thread.join()

    def read_on():
        for _ in range(10):  # what it had read before it died comes first
            stream.read(timeout=60.0)

    with pytest.raises(streams.StreamFailure, match="ended without a word"):
        read_on()


def test_a_reader_that_is_ended_from_outside_tells(monkeypatch):
    running = threading.Event()

    def endless():
        yield np.ones(3)
        running.set()
        while True:
            time.sleep(0.01)

    def end_reader(state, rows):
        running.wait()
        (reader,) = [t for t in threading.enumerate() if t.name == "phihat-stream"]
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(reader.ident), ctypes.py_object(SystemExit)
        )

    with pytest.raises(RuntimeError, match="raised SystemExit at batch 1"):
        train(endless(), callbacks=[end_reader])


def test_a_stream_that_gives_no_more_ends_with_the_time_limit():
    never = threading.Event()

    def stuck():
        yield from numbered(3)
        never.wait()

    train(numbered(3), num_steps=3)  # compiles
    result = train(stuck(), time_limit=1.0)
    never.set()
    assert result.status == Status.TIME_LIMIT
    assert result.num_steps == 3


def test_passes_that_are_empty_end():
    class EmptyLater:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            return numbered(3 if self.passes == 1 else 0)

    with pytest.warns(UserWarning, match="ended after 3 batches"):
        result = train(EmptyLater(), num_steps=10)
    assert result.status == Status.STOPPED
    assert "by the end of the stream" in repr(result)


def test_a_stream_may_fit_something_itself():
    def nested():
        for number in range(4):
            inner = phihat.fit(
                lambda x: x**2, 1.0, phihat.gradient_descent(0.1), num_steps=2
            )
            yield np.full(3, float(number)) + 0.0 * np.asarray(inner.loss)

    assert seen(train(nested(), num_steps=4)) == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_threads_of_streams_end_with_their_fits():
    before = threading.active_count()
    train(numbered(10**9))
    deadline = time.monotonic() + 60.0
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    names = [thread.name for thread in threading.enumerate()]
    assert "phihat-stream" not in names


def test_arrays_of_jax_are_used_where_they_are():
    def on_device():
        for number in range(5):
            yield jax.device_put(jnp.full((4,), float(number)), jax.devices()[0])

    assert seen(train(on_device(), num_steps=5)) == [0, 1, 2, 3, 4]
