"""Tests runs in separate processes: killed, resumed, several workers."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import write_images

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"
TIMEOUT = 300  # seconds, for one process


WORKER = ("-m", "tests.training.worker")


def start(*arguments, tf_config=None):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, "PYTHONPATH": path}
    env.pop("TF_CONFIG", None)
    if tf_config:
        env["TF_CONFIG"] = json.dumps(tf_config)
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    """Waits for all of them, with a time limit."""
    try:
        outputs = [
            process.communicate(timeout=TIMEOUT)[0] for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [process.returncode for process in processes], outputs


def run(folder, *options):
    codes, outputs = finish([start(*WORKER, folder, *options)])
    return codes[0], outputs[0]


def start_two(folder, options=("", "")):
    """Two workers on this machine."""
    common = (*WORKER, folder, "--strategy=auto", "--sync")
    return start_each(*((*common, *part.split()) for part in options))


def start_each(*commands):
    """Workers of one cluster, over the loopback."""
    sockets = [socket.socket() for _ in commands]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        start(
            *command,
            tf_config={
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            },
        )
        for index, command in enumerate(commands)
    ]


def weights(folder):
    with np.load(folder / "weights.npz") as archive:
        return dict(archive)


def assert_equal(left, right, tolerance=0.0):
    assert left.keys() == right.keys()
    for name, value in left.items():
        scale = tolerance * np.max(np.abs(value))
        np.testing.assert_allclose(
            right[name], value, rtol=0, atol=scale, err_msg=name
        )


def kill_and_rerun(tmp_path, kills, *options):
    """Kills a run several times and compares it with an uninterrupted one."""
    code, output = run(tmp_path / "whole", *options)
    assert code == 0, output
    for where, step in kills:
        death = (f"--kill_in={where}", f"--kill_at={step}")
        code, output = run(tmp_path / "killed", *options, *death)
        assert code == -signal.SIGKILL, output
        assert not (tmp_path / "killed" / "weights.npz").exists()
    code, output = run(tmp_path / "killed", *options)
    assert code == 0, output
    assert "Resuming from step" in output
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


@pytest.mark.large
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path):
    kill_and_rerun(tmp_path, [("update", 5)])


@pytest.mark.large
def test_a_run_killed_at_five_random_steps(tmp_path):
    steps = sorted(random.SystemRandom().choices(range(1, 12), k=4))
    print("killed at", steps)
    kills = [("update", step) for step in steps]
    # Once between an evaluation and its checkpoint.
    kills.append(("finish_epoch", 12))
    kill_and_rerun(tmp_path, kills, "--digits")


@pytest.mark.large
def test_deterministic_operations_are_all_there(tmp_path):
    """On a CPU, they compute the same as the others."""
    for name in ("--digits", "--deterministic"):
        code, output = run(tmp_path / name, "--digits", name)
        assert code == 0, output
    names = ("--digits", "--deterministic")
    assert_equal(*(weights(tmp_path / name) for name in names))


def check_that_two_end_as_one(tmp_path, said):
    """Starts or resumes two workers and compares with one process."""
    codes, outputs = finish(start_two(tmp_path / "two"))
    assert codes == [0, 0], "\n".join(outputs)
    assert said in outputs[0]
    code, output = run(tmp_path / "one", "--sync")
    assert code == 0, output
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-5)


@pytest.mark.large
def test_two_workers_equal_one_process(tmp_path):
    check_that_two_end_as_one(tmp_path, "2 replicas, this")


@pytest.mark.large
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_worker_ends_clearly_and_all_go_on(tmp_path, victim):
    options = ["", ""]
    options[victim] = "--kill_at=6"
    codes, outputs = finish(start_two(tmp_path / "two", options))
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] not in (0, -signal.SIGKILL), outputs[1 - victim]
    if victim:
        # The first worker hosts the service that reports lost workers, so the
        # others' message about its end is TensorFlow's.
        assert "Another worker was lost after step" in outputs[0]
    check_that_two_end_as_one(tmp_path, "Resuming from step")


@pytest.mark.large
def test_all_workers_save_and_stop_when_one_is_told_to(tmp_path):
    options = ["", f"--kill_at=5 --signal={signal.SIGTERM}"]
    codes, outputs = finish(start_two(tmp_path / "two", options))
    assert codes == [128 + signal.SIGTERM] * 2, "\n".join(outputs)
    # Three updates after the last report, see tiny.config().
    assert all("Saved step 6. Run the same" in output for output in outputs)
    check_that_two_end_as_one(tmp_path, "Resuming from step 6 of 12")


@pytest.mark.large
def test_a_recipe_trains_on_two_workers(tmp_path):
    write_images(tmp_path / "train", ("blue", "red"), 8, 32)
    write_images(tmp_path / "test", ("blue", "red"), 3, 32)
    command = (
        *(RECIPES / "train_cifar10.py", f"--data={tmp_path}", "--dim=8"),
        *("--depth=1", "--batch_size=8", "--epochs=2", "--notensorboard"),
        f"--output={tmp_path / 'run'}",
    )
    codes, outputs = finish(start_each(command, command))
    assert codes == [0, 0], "\n".join(outputs)
    assert "curve.png" in outputs[0]
    assert "curve.png" not in outputs[1]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["replicas"], summary["last"]["step"]) == (2, 4)
    assert (tmp_path / "run" / "model.keras").exists()
