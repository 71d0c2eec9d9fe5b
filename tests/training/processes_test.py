"""Runs in processes of their own: killed, restarted, several at once."""

import json
import os
import random
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

TIMEOUT = 300  # seconds, for one process


def start(folder, *options, tf_config=None):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, "PYTHONPATH": path}
    env.pop("TF_CONFIG", None)
    if tf_config:
        env["TF_CONFIG"] = json.dumps(tf_config)
    command = [sys.executable, "-m", "tests.training.worker", str(folder)]
    return subprocess.Popen(
        [*command, *options],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    """Waits for all of them, but never for long."""
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
    codes, outputs = finish([start(folder, *options)])
    return codes[0], outputs[0]


def start_two(folder, options=("", "")):
    """Two workers on this machine, over the loopback."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        start(
            folder,
            "--strategy=auto",
            "--sync",
            *options[index].split(),
            tf_config={
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            },
        )
        for index in range(2)
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
    """Kills one run several times, and compares it with one left alone."""
    code, output = run(tmp_path / "whole", *options)
    assert code == 0, output
    for where, step in kills:
        death = (f"--kill_in={where}", f"--kill_at={step}")
        code, output = run(tmp_path / "killed", *options, *death)
        assert code == -signal.SIGKILL, output
        assert not (tmp_path / "killed" / "weights.npz").exists()
    code, output = run(tmp_path / "killed", *options)
    assert code == 0, output
    assert "Goes on from step" in output
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path):
    kill_and_rerun(tmp_path, [("update", 5)])


@pytest.mark.large
def test_a_run_killed_at_five_random_steps(tmp_path):
    steps = sorted(random.SystemRandom().choices(range(1, 12), k=4))
    print("killed at", steps)
    kills = [("update", step) for step in steps]
    # And once between an evaluation and its checkpoint.
    kills.append(("finish_epoch", 12))
    kill_and_rerun(tmp_path, kills, "--digits")


@pytest.mark.large
def test_two_workers_equal_one_process(tmp_path):
    code, output = run(tmp_path / "one", "--sync")
    assert code == 0, output
    codes, outputs = finish(start_two(tmp_path / "two"))
    assert codes == [0, 0], "\n".join(outputs)
    assert "2 replicas, this" in outputs[0]
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-5)


@pytest.mark.large
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_worker_ends_clearly_and_all_go_on(tmp_path, victim):
    options = ["", ""]
    options[victim] = "--kill_at=6"
    codes, outputs = finish(start_two(tmp_path / "two", options))
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] not in (0, -signal.SIGKILL), outputs[1 - victim]
    if victim:
        # The first worker hosts the service that tells of losses, so what
        # the others say of its end is TensorFlow's.
        assert "Another worker was lost after step" in outputs[0]
    codes, outputs = finish(start_two(tmp_path / "two"))
    assert codes == [0, 0], "\n".join(outputs)
    assert "Goes on from step" in outputs[0]
    code, output = run(tmp_path / "one", "--sync")
    assert code == 0, output
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-5)
