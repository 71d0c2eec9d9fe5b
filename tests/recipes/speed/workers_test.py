"""Processes that time: answers, failures of every kind, and ends."""

import os
import time

import pytest

FRAMEWORK = """
import os, sys, time
import numpy as np

calls = []

def set_up(threads, tf32):
    calls.append((threads, tf32, os.environ["OMP_NUM_THREADS"]))

def describe():
    print("noise on the standard output")
    return {"kind": "cpu", "device": "fake", "set_up": calls[0]}

def free_memory():
    calls.append("free")

def to_numpy(x):
    return np.asarray(x)

def build_step(case, model, batch_size, contestant):
    if case == "no memory":
        raise MemoryError
    if case == "wrong":
        raise ValueError("first line\\nsecond line")
    if case == "wrapped":
        text = "Exception encountered when calling Add.call().\\n\\n\\x1b[1mwhy"
        raise ValueError(text + "\\x1b[0m\\n\\nArguments received by Add")
    def run(steps):
        calls.append(steps)
        if case == "dies":
            os._exit(3)
        if case == "hangs":
            time.sleep(60)
        time.sleep((1 if case == "long" else 0.01) * steps)
        return float("nan") if case == "nan" else 1.0
    return run

def build_ceiling(kind, dtype, size):
    return lambda steps: time.sleep(size * steps)
"""


@pytest.fixture
def workers(load_recipe, tmp_path, monkeypatch):
    module = load_recipe("speed.workers")
    (tmp_path / "fake_framework.py").write_text(FRAMEWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(module.STEPS, "keras", "fake_framework")
    monkeypatch.setitem(module.STEPS, "torch", "missing_framework")
    return module


@pytest.fixture
def open_worker(workers):
    opened = []

    def open_worker(framework="keras", device="cpu", **settings):
        settings = workers.Settings(device, threads=3, **settings)
        opened.append(workers.Worker(framework, settings))
        return opened[-1]

    yield open_worker
    for worker in opened:
        worker.close()


def test_settings_arrive(open_worker):
    worker = open_worker(tf32=False)
    assert worker.description["set_up"] == (3, False, "3")


def test_rounds_are_timed_in_the_process(open_worker):
    worker = open_worker()
    assert worker.ask(9, "prepare", "", "", 1, "") >= 0.01
    assert worker.ask(9, "time_round") >= 0.01
    # The clock of the process does not see it sleep for a second.
    worker = open_worker(clock="cpu")
    worker.ask(9, "prepare", "long", "", 1, "")
    assert worker.ask(9, "time_round") < 0.5


def test_short_steps_are_timed_together(open_worker):
    worker = open_worker(round_seconds=0.1)
    worker.ask(9, "prepare", "", "", 1, "")
    start = time.perf_counter()
    assert 0.01 <= worker.ask(9, "time_round") < 0.05
    assert time.perf_counter() - start > 0.03


def test_limits_are_timed_in_rounds(open_worker):
    seconds = open_worker().ask(9, "ceiling", "copy", "float32", 0.02)
    assert len(seconds) == 7
    assert min(seconds) >= 0.02


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no memory", "^out of memory$"),
        ("wrong", "^ValueError: first line$"),
        ("wrapped", "^ValueError: why$"),
        ("nan", "not finite"),
        ("dies", "its process ended with status 3"),
        ("hangs", "no answer within 1 s"),
    ],
)
def test_failures_have_a_reason(workers, open_worker, case, message):
    worker = open_worker()
    with pytest.raises(workers.ContestantError, match=message):
        worker.ask(1, "prepare", case, "", 1, "")
    assert worker.ended


def test_another_device_is_an_error(workers, open_worker):
    with pytest.raises(
        workers.ContestantError, match=r"a gpu\. Received: fake, a"
    ):
        open_worker(device="gpu")


def test_a_missing_framework_is_an_error(workers, open_worker):
    with pytest.raises(workers.ContestantError, match="missing_framework"):
        open_worker("torch")


def test_a_process_that_failed_is_replaced(workers):
    with workers.Workers(workers.Settings("cpu", 1), together=True) as several:
        first, other = (several.get(n, "keras") for n in ("ours", "timm"))
        assert first is not other
        assert several.get("ours", "keras") is first
        with pytest.raises(workers.ContestantError):
            first.ask(9, "prepare", "wrong", "", 1, "")
        second = several.get("ours", "keras")
        assert second is not first
        assert not second.ended
    assert second.ended
    assert other.ended


def test_no_process_starts_after_the_deadline(workers):
    past = time.monotonic() - 1
    settings = workers.Settings("cpu", 1)
    with (
        workers.Workers(settings, together=True, deadline=past) as several,
        pytest.raises(workers.ContestantError, match="no answer within 0 s"),
    ):
        several.get("ours", "keras")


def test_one_at_a_time_has_the_memory(workers, monkeypatch):
    monkeypatch.setitem(workers.STEPS, "torch", "fake_framework")
    with workers.Workers(workers.Settings("cpu", 1), together=False) as one:
        ours = one.get("ours", "keras")
        assert one.get("ours pure", "keras") is ours
        one.get("timm NCHW", "torch")
        assert ours.ended


def test_the_process_ends_with_its_parent(open_worker):
    worker = open_worker()
    worker._connection.close()
    assert worker._process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.",
        "CUDA out of memory. Tried to allocate 9 GiB.",
        "OOM when allocating tensor with shape[9]",
    ],
)
def test_frameworks_say_lack_of_memory_in_their_ways(workers, message):
    assert workers.explain(RuntimeError(message)) == "out of memory"


def test_a_gpu_is_hidden_from_a_benchmark_of_the_cpu(workers, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    hidden = workers._environment(workers.Settings("cpu", 1))
    assert hidden["CUDA_VISIBLE_DEVICES"] == ""
    seen = workers._environment(workers.Settings("gpu"))
    assert seen["CUDA_VISIBLE_DEVICES"] == "0"
    assert seen["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"
    assert seen["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert seen.get("NPROC") == os.environ.get("NPROC")
