"""What happens between chunks: callbacks, held-out data, the clock, signals, logs."""

import json
import os
import shutil
import signal
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from phihat import Checkpoints, Status, training
from phihat.training import logging


class Crash(Exception):
    pass


def bowl(p):
    return jnp.sum((p - 1.0) ** 2)


def train(optimizer=None, *, num_steps=60, steps_per_chunk=10, **settings):
    return phihat.train(
        bowl,
        jnp.zeros(3),
        optimizer or phihat.adam(0.01),
        num_steps=num_steps,
        steps_per_chunk=steps_per_chunk,
        **settings,
    )


# -------------------------------------------------------------------------- callbacks


def as_torch(value):
    return pytest.importorskip("torch").tensor(value)


ANSWERS = {
    "None": (lambda: None, 60),
    "False": (lambda: False, 60),
    "True": (lambda: True, 10),
    "of NumPy": (lambda: np.bool_(True), 10),
    "of jax": (lambda: jnp.asarray(True), 10),
    "of jax, False": (lambda: jnp.zeros((), bool), 60),
    "of PyTorch": (lambda: as_torch(True), 10),
    "an array of NumPy": (lambda: np.array(False), 60),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_callback_may_answer_by_a_truth_value_of_any_library(kind):
    answer, steps = ANSWERS[kind]

    def speak(state, rows):
        return answer()

    result = train(callbacks=[speak])
    assert int(result.num_steps) == steps
    ended_by = f"the callback `{speak.__qualname__}`" if steps < 60 else ""
    assert result.ended_by == ended_by
    if steps < 60:
        assert f"STOPPED after 10 steps, by the callback `{speak.__qualname__}" in repr(
            result
        )


WRONG_ANSWERS = {
    "0": 0,
    "1.0": 1.0,
    "a text": "stop",
    "the rows": {"loss": np.ones(3)},
    "an array of truths": np.array([True]),
    "a status": Status.STOPPED,
    "an integer of NumPy": np.int32(1),
    "a factory": phihat.adam,
}


@pytest.mark.parametrize("kind", WRONG_ANSWERS)
def test_any_other_answer_is_an_error_that_names_the_callback(kind):
    def odd(state, rows):
        return WRONG_ANSWERS[kind]

    with pytest.raises(TypeError, match=r"train: the callback `.*odd` returned"):
        train(callbacks=[odd])


def test_a_callback_cannot_corrupt_the_history_nor_the_fit():
    def vandal(state, rows):
        rows["loss"][:] = 7.0
        rows.clear()
        for leaf in jax.tree.leaves(state):
            leaf.delete()

    whole = phihat.fit(bowl, jnp.zeros(3), phihat.adam(0.01), num_steps=60)
    result = train(callbacks=[vandal, lambda state, rows: rows["loss"].sort()])
    np.testing.assert_array_equal(result.history["loss"], whole.history["loss"])
    np.testing.assert_array_equal(result.params, whole.params)


def halve_at(*steps):
    def halve(state, rows):
        if int(state.step) in steps:
            return phihat.adam(0.1 / 2 ** (1 + steps.index(int(state.step))))
        return None

    return halve


def test_a_callback_may_change_the_rate(tmp_path):
    """And a crash after it changes nothing."""
    record = ("loss", "learning_rate")
    result = train(phihat.adam(0.1), callbacks=[halve_at(20, 40)], record=record)
    rates = np.asarray(result.history["learning_rate"])
    np.testing.assert_array_equal(rates, np.repeat([0.1, 0.05, 0.025], 20))

    def crash(state, rows):
        if int(state.step) == 50:
            raise Crash

    kept = {"checkpoint": Checkpoints(tmp_path, every=10), "record": record}
    with pytest.raises(Crash):
        train(phihat.adam(0.1), callbacks=[halve_at(20, 40), crash], **kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = train(phihat.adam(0.1), callbacks=[halve_at(20, 40)], **kept)
    np.testing.assert_array_equal(again.history["learning_rate"], rates)
    np.testing.assert_array_equal(again.params, result.params)


@pytest.mark.parametrize("other", [phihat.momentum(0.1), optax.adam(0.1)])
def test_a_callback_may_not_change_the_code(other):
    with pytest.raises(TypeError, match="an optimizer of other code than the fit's"):
        train(phihat.adam(0.1), callbacks=[lambda state, rows: other])


# --------------------------------------------------------------------- held-out data


X = jnp.linspace(0.0, 1.0, 12)
LINE = (X, 2.0 * X - 1.0)


def fit_line(validation, **settings):
    return phihat.train(
        phihat.losses.least_squares(phihat.models.linear, reduction="mean"),
        {"weight": 0.0, "bias": 0.0},
        phihat.adam(0.1),
        LINE,
        num_steps=100,
        validation=validation,
        **settings,
    )


def test_nan_of_held_out_data_is_said_and_chooses_no_params():
    held_out = (jnp.full_like(X, jnp.nan), LINE[1])
    validation = training.Validation(held_out, every=10, patience=3)
    with pytest.warns(UserWarning, match="the validation loss was nan after 10 steps"):
        result = fit_line(validation)
    assert (int(result.num_steps), result.status) == (30, Status.STOPPED)
    assert "by patience: 3 looks" in repr(result)
    assert jnp.isfinite(result.params["weight"])
    assert result.params["weight"] == result.state.params["weight"]


def accuracy(params, data):
    x, y = data
    error = jnp.abs(phihat.models.linear(params, x) - y)
    return jnp.mean(error < 0.1)


def test_another_metric_chooses(tmp_path):
    most = training.Validation(LINE, every=10, metric=accuracy, mode="max")
    result = fit_line(most)
    metrics = np.asarray(result.history["validation_metric"])
    assert metrics.max() == pytest.approx(float(accuracy(result.params, LINE)))
    step = int(result.history["validation_step"][metrics.argmax()])
    short = fit_line(None, steps_per_chunk=7)
    assert short.num_steps == 100
    losses = result.history["validation_loss"]
    assert len(losses) == len(metrics) == 10
    assert step % 10 == 0
    again = fit_line(most, checkpoint=Checkpoints(tmp_path, every=30))
    whole = fit_line(most, checkpoint=Checkpoints(tmp_path, every=30))
    for name, value in result.history.items():
        np.testing.assert_array_equal(value, again.history[name])
        np.testing.assert_array_equal(value, whole.history[name])


def test_min_delta_asks_for_more_than_a_trifle():
    few = fit_line(training.Validation(LINE, every=5, patience=2, min_delta=0.2))
    many = fit_line(training.Validation(LINE, every=5, patience=2))
    assert int(few.num_steps) < int(many.num_steps)


def test_the_model_state_returned_belongs_to_the_params_returned(tmp_path):
    def loss_fn(params, batch, model_state):
        return jnp.sum((params - batch) ** 2), model_state + 1.0

    def run(num_steps):
        return phihat.train(
            loss_fn,
            jnp.asarray(8.0),
            phihat.gradient_descent(0.25),
            jnp.asarray(0.0),
            num_steps=num_steps,
            model_state=jnp.asarray(0.0),
            checkpoint=Checkpoints(tmp_path, every=2),
            # The third look, at 1.0, is the best.
            validation=training.Validation(jnp.asarray(1.0), every=1),
        )

    result = run(8)
    assert (float(result.params), float(result.model_state)) == (1.0, 3.0)
    assert float(result.state.model_state) == 8.0
    assert float(result.loss) == 1.0
    for again in (run(8), run(10)):  # read from the checkpoint, and gone on from it
        assert (float(again.params), float(again.model_state)) == (1.0, 3.0)


def test_wrong_validations():
    for changed, error, message in (
        ({"metric": 3}, TypeError, "`metric` must be a function"),
        (
            {"metric": lambda params, data, state: 0.0},
            TypeError,
            "`metric` must be a function",
        ),
        ({"mode": "most"}, ValueError, "`mode` must be one of"),
        ({"min_delta": -1.0}, ValueError, "`min_delta` must be >= 0"),
        ({"min_delta": "0"}, TypeError, "`min_delta` must be a real number"),
    ):
        with pytest.raises(error, match=f"^Validation: {message}"):
            training.Validation(LINE, 5, **changed)
    with pytest.raises(ValueError, match="`metric` must return one number"):
        fit_line(training.Validation(LINE, 5, metric=lambda p, data: data[0]))


# ------------------------------------------------------------------------- the clock


def slow(seconds):
    """A loss whose steps take a while."""

    def wait(value):
        time.sleep(seconds)
        return np.zeros((), value.dtype)

    def loss(p):
        shape = jax.ShapeDtypeStruct((), p.dtype)
        pause = jax.pure_callback(wait, shape, jax.lax.stop_gradient(p[0]))
        return bowl(p) + jax.lax.stop_gradient(pause)

    return loss


def test_a_time_limit_is_kept_where_steps_are_slow():
    """By the steps taken, not by a clock: sixteen would have taken three seconds."""
    result = phihat.train(
        slow(0.2), jnp.zeros(3), phihat.adam(0.01), num_steps=100, time_limit=0.5
    )
    assert result.status == Status.TIME_LIMIT
    assert 1 <= int(result.num_steps) <= 4


def test_a_signal_is_answered_within_a_chunk_of_any_length(capfd):
    """A chunk of a million steps is taken in pieces."""
    seen = []

    def loss(p):
        jax.debug.callback(lambda: seen or interrupt())
        return bowl(p)

    def interrupt():
        seen.append(1)
        os.kill(os.getpid(), signal.SIGINT)

    result = phihat.train(
        loss,
        jnp.zeros(3),
        phihat.adam(0.01),
        num_steps=10**6,
        steps_per_chunk=10**6,
        record=(),
    )
    assert result.status == Status.INTERRUPTED
    assert int(result.num_steps) < 10**6
    told = capfd.readouterr().err
    assert "SIGINT: the fit ends after the steps under way" in told
    assert "to go on, call it with `state=result.state`" in told


def test_what_ends_by_a_signal_names_the_checkpoint(tmp_path, capfd):
    def interrupt(state, rows):
        if int(state.step) == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    train(callbacks=[interrupt], checkpoint=Checkpoints(tmp_path, every=1000))
    told = capfd.readouterr().err
    assert "SIGTERM: the fit ends" in told
    assert "the checkpoint of step 20 is in" in told
    assert "make the same call again" in told


def test_callbacks_are_called_where_the_chunks_end():
    seen = []
    train(
        num_steps=35,
        callbacks=[
            lambda state, rows: seen.append((int(state.step), len(rows["loss"])))
        ],
    )
    assert seen == [(10, 10), (20, 10), (30, 10), (35, 5)]


# --------------------------------------------------------------------------- the bar


class Terminal:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_the_bar_has_units_that_can_be_read(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    train(num_steps=2000, steps_per_chunk=None, progress=True)
    assert "2000/2000 steps" in terminal.text
    assert "loss=" in terminal.text
    assert "steps/s" in terminal.text
    assert [logging.speed(s) for s in (2e6, 999.4, 1.0, 0.5)] == [
        "2M steps/s",
        "999 steps/s",
        "1 steps/s",
        "2 s/step",
    ]


def test_a_notebook_without_widgets_has_a_bar_of_text(monkeypatch, capsys):
    monkeypatch.setattr(logging, "_is_notebook", lambda: True)
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    train(progress=True)
    assert "60/60 steps" in capsys.readouterr().err


# ------------------------------------------------------------------------------ logs


def entries_of(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def crash_at(step):
    def crash(state, rows):
        if int(state.step) >= step:
            raise Crash

    return crash


def test_odd_lines_of_a_log_survive_and_no_row_is_there_twice(tmp_path):
    log, kept = tmp_path / "log.jsonl", Checkpoints(tmp_path / "run", every=20)
    with pytest.raises(Crash):
        train(callbacks=[crash_at(50)], checkpoint=kept, log_to=log)
    odd = [b"5", b"[1]", b'"step"', b'{"step": "a"}', b"no json", b"\xff\xfe", b"null"]
    with log.open("ab") as file:
        file.write(b"\n".join([*odd, b'{"step": 70, "loss"']))  # cut short
    train(checkpoint=kept, log_to=log)
    lines = log.read_bytes().splitlines()
    assert [line for line in lines if line in odd] == odd
    rows = [json.loads(line) for line in lines if b'"loss"' in line]
    assert [row["step"] for row in rows] == list(range(60))


def test_where_all_begins_anew_no_row_is_there_twice(tmp_path):
    log = tmp_path / "log.jsonl"
    for _ in range(2):
        with pytest.raises(Crash):
            train(
                callbacks=[crash_at(10)],
                checkpoint=Checkpoints(tmp_path / "run", every=10),
                log_to=log,
            )
        shutil.rmtree(tmp_path / "run")
    steps = [entry["step"] for entry in entries_of(log) if "loss" in entry]
    assert sorted(steps) == list(range(10))


def test_a_log_that_was_removed_is_begun_anew(tmp_path):
    log = tmp_path / "log.jsonl"

    def rotate(state, rows):
        if int(state.step) == 30:
            log.rename(log.with_suffix(".1"))

    train(callbacks=[rotate], log_to=log)
    steps = [entry["step"] for entry in entries_of(log) if "loss" in entry]
    assert steps == list(range(30, 60))
    assert len(entries_of(log.with_suffix(".1"))) == 31


def test_the_log_says_what_ended_the_fit(tmp_path):
    log = tmp_path / "log.jsonl"

    def stop(state, rows):
        return True

    train(callbacks=[stop], log_to=log)
    last = entries_of(log)[-1]
    assert (last["status"], last["by"]) == (
        "STOPPED",
        f"the callback `{stop.__qualname__}`",
    )


# ------------------------------------------------------------------------- averages


@pytest.mark.parametrize(
    "inner",
    [phihat.gradient_descent(0.1), phihat.nesterov(0.01), optax.sgd(0.1, momentum=0.9)],
)
def test_averaged_params_are_the_mean_and_then_forget(inner):
    steps = phihat.fit(bowl, jnp.zeros(3), inner, num_steps=30, record=("params",))
    points = np.asarray(steps.history["params"])[1:]
    mean = points[0]
    for count, point in enumerate(points):
        share = min(0.9, count / (count + 1))
        mean = share * mean + (1 - share) * point
    optimizer = training.with_averaged_params(inner, decay=0.9)
    result = phihat.fit(bowl, jnp.zeros(3), optimizer, num_steps=30)
    np.testing.assert_allclose(result.params, mean, rtol=30 * np.finfo(float).eps)
    np.testing.assert_array_equal(result.state.params, steps.state.params)


def test_averaged_params_are_trained_kept_and_chosen(tmp_path):
    optimizer = training.with_averaged_params(phihat.adam(0.1), decay=0.9)
    record = ("loss", "learning_rate")
    whole = phihat.fit(bowl, jnp.zeros(3), optimizer, num_steps=60, record=record)
    assert (whole.history["learning_rate"] == 0.1).all()
    kept = {"checkpoint": Checkpoints(tmp_path, every=10), "record": record}
    with pytest.raises(Crash):
        train(optimizer, callbacks=[crash_at(30)], **kept)
    again = train(optimizer, **kept)
    np.testing.assert_array_equal(again.params, whole.params)
    held_out = training.Validation(jnp.zeros(1), every=10)
    looked = phihat.train(
        lambda p, data: bowl(p) + jnp.sum(data),
        jnp.zeros(3),
        optimizer,
        jnp.zeros(1),
        num_steps=60,
        validation=held_out,
    )
    best = np.asarray(looked.history["validation_loss"]).min()
    assert float(bowl(looked.params)) == pytest.approx(best, rel=1e-12)


def test_wrong_averages():
    with pytest.raises(ValueError, match=r"`decay` must lie in \[0, 1\), got 1.0"):
        training.with_averaged_params(phihat.adam(0.1), decay=1.0)
    with pytest.raises(TypeError, match="`optimizer` must be an"):
        training.with_averaged_params(3)
    with pytest.raises(ValueError, match="measures its steps itself"):
        training.with_averaged_params(phihat.newton()).init(jnp.zeros(2))
