"""Serves a classifier over HTTP: an image in, JSON out.

    python export/serve/server.py --model runs/mine/saved_model --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict

`--model` is the folder of a SavedModel, of a TF Hub module or of a run, a
`.keras` or `.tflite` file, or a variant with its weights. README.md in this
folder has the limits and what a client sees beyond them.

Starts in seconds; then it runs until SIGTERM or Ctrl-C, and ends when what it
has begun is answered.
"""

import os
import pathlib
import signal
import socket
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from absl import app
from absl import flags
from absl import logging
from application import Limits
from application import Service
from application import give_way
from batching import BatchedClassifier
from connections import server
from images import Decoder

from convmixer_tf import predict
from convmixer_tf.validation import ORIENTATIONS

_LIMITS = Limits()
_MODEL = flags.DEFINE_string("model", None, "What to serve.", required=True)
_NAME = flags.DEFINE_string("name", None, "Its name. Default: from --model.")
_LABELS = flags.DEFINE_string(
    "labels", None, "File with the name of a class a line."
)
_CROP = flags.DEFINE_float(
    "crop_fraction",
    None,
    "Part of an image's side to keep. Default: the model's, or 0.96.",
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Turn images as their EXIF says, or take pixels as stored. Default: the "
    "model's, if its file says it, else exif.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side, in pixels. Default: the model's, or 224.", 1
)
_TOP = flags.DEFINE_integer("top", 5, "Classes to name an image.", 1)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.")
_PORT = flags.DEFINE_integer(
    "port", 8000, "Port to listen at; 0 for any.", 0, 65535
)
_THREADS = flags.DEFINE_integer(
    "threads",
    None,
    "Threads to compute with, and images to decode at once. Default: the "
    "cores that this process may use.",
    1,
)
_MAX_BATCH = flags.DEFINE_integer("max_batch", 16, "Images of a batch.", 1)
_MAX_WAIT = flags.DEFINE_float(
    "max_wait_ms",
    0.0,
    "Milliseconds that an image waits for others while nothing else is being "
    "computed.",
    0,
)
_MAX_PENDING = flags.DEFINE_integer(
    "max_pending", _LIMITS.max_pending, "Images worked on at once.", 1
)
_MAX_CONNECTIONS = flags.DEFINE_integer(
    "max_connections", 512, "Connections at once.", 1
)
_MAX_BYTES = flags.DEFINE_integer(
    "max_bytes", _LIMITS.max_bytes, "The longest body.", 1
)
_MAX_BUFFERED = flags.DEFINE_integer(
    "max_buffered", _LIMITS.max_buffered, "Bytes of all bodies together.", 1
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", 50_000_000, "The most pixels of an image.", 1
)
_BODY_SECONDS = flags.DEFINE_float(
    "body_seconds",
    _LIMITS.body_seconds,
    "How long a request may take to arrive.",
    0.01,
)
_ANSWER_SECONDS = flags.DEFINE_float(
    "answer_seconds",
    _LIMITS.answer_seconds,
    "How long the answer may take from there.",
    0.01,
)


def cores():
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bind(host, port):
    """Takes the port, before time is spent on the model.

    Args:
        host: Name or address.
        port: Integer; 0 for any.

    Returns:
        A socket that does not listen yet: who connects is refused until the
        model is there.

    Raises:
        OSError: If it can't be had; it says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise OSError(
            f"Can't listen at {host}, port {port}: {error.strerror}. Pass "
            "another --host or --port."
        ) from error
    return bound


def load_service(limits, threads):
    """Loads the model that the flags name, and runs it once.

    Args:
        limits: A `Limits`.
        threads: Integer, to compute with.

    Returns:
        A `Service`.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it can't be read, or flags do not fit it.
    """
    # One waits for the model, one works beside it, and those that decode.
    tf.config.threading.set_inter_op_parallelism_threads(2 + threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    logging.info("Loading %s", _MODEL.value)
    classifier = predict.classifier_of(
        types.SimpleNamespace(
            model=_MODEL.value,
            labels=_LABELS.value,
            crop_fraction=_CROP.value,
            image_size=_IMAGE_SIZE.value,
            orientation=_ORIENTATION.value,
        )
    )
    batched = BatchedClassifier(
        classifier,
        _MAX_BATCH.value,
        _MAX_WAIT.value / 1e3,
        limits.max_pending,
    )
    logging.info("Warming up, %d threads", threads)
    batched.warm_up()
    decoder = Decoder(
        classifier.image_size,
        classifier.crop_fraction,
        classifier.orientation,
        _MAX_PIXELS.value,
    )
    decoder.warm_up(batched.blank)
    return Service(
        decoder,
        batched,
        limits,
        name=_NAME.value or pathlib.Path(_MODEL.value).resolve().stem,
        class_names=classifier.class_names,
        top=_TOP.value,
        threads=threads,
    )


def run(bound):
    """Serves until a signal comes, and answers what has been begun.

    Args:
        bound: Socket.
    """
    limits = Limits(
        max_bytes=_MAX_BYTES.value,
        max_buffered=_MAX_BUFFERED.value,
        max_pending=_MAX_PENDING.value,
        body_seconds=_BODY_SECONDS.value,
        answer_seconds=_ANSWER_SECONDS.value,
    )
    # Threads inherit their priority, so TensorFlow's will have this one's.
    with ThreadPoolExecutor(1, initializer=give_way) as loading:
        arguments = (limits, _THREADS.value or cores())
        service = loading.submit(load_service, *arguments).result()
    # uvicorn repeats the signal when all is answered.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server(service, limits, _MAX_CONNECTIONS.value).run([bound])


def main(argv):
    """Serves the model that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.INFO)
    try:
        with bind(_HOST.value, _PORT.value) as bound:
            run(bound)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    app.run(main)
