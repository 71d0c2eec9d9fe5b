"""Tests export/serve/server.py with a SavedModel."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from convmixer_tf.data import decode_image
from convmixer_tf.data.cropping import resize_and_center_crop
from convmixer_tf.export import export_saved_model
from convmixer_tf.models import ConvMixer
from tests.helpers import ROOT
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.serve.conftest import Client
from tests.serve.conftest import head

NAMES = ("ant", "bee", "cat", "dog", "élan")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return randomize(ConvMixer(16, 2, 3, 4, input_shape=(24, 24, 3), classes=5))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "pets"
    export_saved_model(model, path, class_names=NAMES)
    return path


def start(path, *arguments):
    """Starts the server; returns the process and a client."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "export" / "serve" / "server.py",
            f"--model={path}",
            f"--port={port}",
            "--threads=1",
            *arguments,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    client = Client(port)
    for _ in range(600):
        try:
            client.health()
            return process, client
        except ConnectionError:
            assert process.poll() is None
            time.sleep(0.2)
    raise AssertionError("It does not start.")


def files():
    images = [
        asymmetric_image(*size, batch=1)[0] for size in ((40, 31), (24, 90))
    ]
    return [
        encode(image).numpy()
        for image in images
        for encode in (tf.io.encode_jpeg, tf.io.encode_png)
    ]


@pytest.mark.slow
def test_it_answers_as_the_model_until_it_is_told_to_stop(model, exported):
    process, client = start(exported)
    try:
        assert client.get("/health/ready") == (
            200,
            {"status": "ready", "model": "pets"},
        )
        for file in files():
            content = client.post(file)[2]
            pixels = resize_and_center_crop(decode_image(file), 24)
            expected = model(pixels[None]).numpy()[0]
            order = np.argsort(-expected)
            found = content["predictions"]
            assert [x["index"] for x in found] == order.tolist()
            assert [x["class"] for x in found] == [NAMES[i] for i in order]
            np.testing.assert_allclose(
                [x["probability"] for x in found], expected[order], atol=1e-5
            )

        stats = pathlib.Path(f"/proc/{process.pid}/task").glob("*/stat")
        nice = {
            int(path.parent.name): int(
                path.read_text().rpartition(")")[2].split()[16]
            )
            for path in stats
        }
        own = nice[process.pid]
        assert sum(value == own + 5 for value in nice.values()) > 2

        request = head(len(file)) + file
        with client.connect(request[:100]) as begun, client.connect():
            client.until(status="live")
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(ConnectionError):
                client.connect()
            begun.sendall(request[100:])
            assert begun.recv(4000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.large
def test_locust_finds_no_failure(exported, tmp_path):
    if importlib.util.find_spec("locust") is None:
        pytest.skip("needs pip install locust")
    for i, file in enumerate(files()):
        (tmp_path / f"{i}.jpg").write_bytes(file)
    process, client = start(exported)
    try:
        command = (
            "locust -f export/serve/locustfile.py --headless --users 8 "
            f"--host http://127.0.0.1:{client.port} --run-time 5s "
            f"--images {tmp_path}"
        )
        result = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        answers = client.health()["answers"]
        assert answers["200"] > 10
        assert set(answers) <= {"200", "415", "422", "499"}
    finally:
        process.kill()
        process.wait()


# Runs main with each set of flags, in one process; prints the errors.
_DRIVER = """
import json, sys
from convmixer_tf.cli import serve as server
from absl import app, flags
for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        rest = flags.FLAGS(["server.py", *arguments])
        server.main(rest)
    except (SystemExit, flags.Error, app.UsageError) as error:
        print(str(error).replace(chr(10), " "))
"""


@pytest.mark.slow
def test_what_is_wrong_is_said_in_a_line(exported, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_text("broken")
    (tmp_path / "two.txt").write_text("ant\nbee\n")
    model = f"--model={exported}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            (): "flag --model=None: Flag --model must have a value",
            ("--model=no/model", "--port=0"): "Error: The model must be a ",
            (model, f"--port={port}"): f"Error: Cannot listen at 127.0.0.1, "
            f"port {port}: Address already in use. Pass another --host or",
            (model, "--host=256.0.0.1"): "Error: Cannot listen at 256.0.0.1, ",
            (model, "--port=70000"): "flag --port=70000: ",
            (model, "--max_batch=0"): "flag --max_batch=0: ",
            (model, "--body_seconds=0"): "flag --body_seconds=0",
            (model, "photo.jpg"): "Unexpected arguments: ['photo.jpg']",
            (f"--model={tmp_path}/broken", "--port=0"): "Error: Cannot read a ",
            (model, "--port=0", f"--labels={tmp_path}/two.txt"): "Error: The "
            "model has 5 classes, but there are 2 class names. (`--labels ",
        }
        printed = subprocess.run(
            [sys.executable, "-c", _DRIVER, json.dumps(list(cases))],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    [str(ROOT / "export" / "serve"), *filter(None, sys.path)]
                ),
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        ).stdout
    for line, expected in zip(
        printed.splitlines(), cases.values(), strict=True
    ):
        assert line.startswith(expected)
