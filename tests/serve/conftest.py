"""A server in this process, with a classifier that waits for a gate."""

import contextlib
import functools
import http.client
import io
import json
import socket
import threading
import time

import numpy as np
from PIL import Image

from convmixer_tf.inference.classifiers import Classifier
from convmixer_tf.serve.application import Limits
from convmixer_tf.serve.application import Service
from convmixer_tf.serve.batching import BatchedClassifier
from convmixer_tf.serve.connections import uvicorn_server
from convmixer_tf.serve.images import Decoder

SIZE = 8
CLASSES = ("red", "green", "blue")
PATIENCE = 20


def encoded(color, size=(12, 10), kind="PNG", **options):
    """Returns the bytes of an image file of one color."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind, **options)
    return file.getvalue()


class Gate:
    """Returns the amounts of red, green and blue when the gate is open."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.sizes = []
        self.fails = False
        self.scale = 1.0
        self.entered = threading.Event()

    def predict(self, pixels):
        self.entered.set()
        assert self.open.wait(PATIENCE)
        assert not self.fails
        self.sizes.append(len(pixels))
        mean = pixels.mean(axis=(1, 2)) + 1
        return self.scale * mean / mean.sum(axis=1, keepdims=True)


class CountedClassifier(BatchedClassifier):
    """Counts its images."""

    def __init__(self, *arguments):
        self.asked = 0
        super().__init__(*arguments)

    async def __call__(self, image):
        self.asked += 1
        return await super().__call__(image)


class Client:
    """A client of a local server."""

    def __init__(self, port):
        self.port = port

    def post(self, body, path="/predict", kind=None):
        """Returns the status, the headers and the object of the answer."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE
        )
        with contextlib.closing(connection):
            connection.request(
                "POST" if body is not None else "GET",
                path,
                body,
                {"Content-Type": kind} if kind else {},
            )
            response = connection.getresponse()
            content = json.loads(response.read())
            return response.status, response.headers, content

    def wait(self, condition):
        """Waits until a condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def get(self, path):
        status, _, content = self.post(None, path)
        return status, content

    def health(self):
        return self.get("/health")[1]

    def until(self, **expected):
        """Waits until the server's health report has these entries."""
        self.wait(lambda: expected.items() <= self.health().items())

    def connect(self, *pieces):
        """Opens a connection and sends pieces."""
        opened = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        for piece in pieces:
            opened.sendall(piece)
        return opened

    def background(self, body):
        """Posts in a thread; returns the list that gets the answer."""
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(self.post(body))
        )
        thread.start()
        return thread, answers


def head(length, more=""):
    return (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"{more}\r\n"
    ).encode()


@functools.cache
def decoder(orientation="exif"):
    """One for all tests, because building its graph takes a second."""
    made = Decoder(SIZE, 1.0, orientation, max_pixels=10_000)
    made.warm_up(np.zeros((SIZE, SIZE, 3), np.uint8))
    return made


@contextlib.contextmanager
def running(max_batch=4, **limits):
    """Runs a server; yields a client and the classifier's gate."""
    gate = Gate()
    limits = Limits(**{"max_pending": 8, **limits})
    classifier = Classifier(gate.predict, len(CLASSES), CLASSES, SIZE)
    batched = CountedClassifier(classifier, max_batch, 0.0)
    gate.asked = lambda: batched.asked
    service = Service(
        decoder(),
        batched,
        limits,
        name="colors",
        class_names=CLASSES,
        top=2,
        threads=1,
    )
    server = uvicorn_server(service, limits)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        client = Client(bound.getsockname()[1])
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield client, gate
        finally:
            gate.open.set()
            server.should_exit = True
            thread.join(PATIENCE)
