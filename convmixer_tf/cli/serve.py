"""Serves a classifier over HTTP: an image in, JSON out.

    convmixer serve --model runs/mine/saved_model --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict

`--model` is a SavedModel, TF Hub module or run folder, a `.keras` or `.tflite`
file, or a variant with published weights. export/serve/README.md describes the
limits and the responses beyond them.

It starts in seconds and runs until SIGTERM or Ctrl-C. It exits after all
pending requests are answered.
"""

import pathlib
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import predict
from convmixer_tf import serve
from convmixer_tf.serve.application import Limits
from convmixer_tf.serve.batching import give_way
from convmixer_tf.timing import available_cores
from convmixer_tf.validation import ORIENTATIONS

flags.DEFINE_string("model", None, "Model to serve.", required=True)
flags.DEFINE_string("labels", None, "File with one class name a line.")
flags.DEFINE_float(
    "crop_fraction",
    None,
    "Fraction of an image's side to keep. Default: the model's, or 0.96.",
)
flags.DEFINE_enum(
    "orientation",
    None,
    ORIENTATIONS,
    "Rotate images as their EXIF says, or read pixels as stored. Default: the "
    "value in the model's file, else exif.",
)
flags.DEFINE_integer(
    "image_size", None, "Image size, pixels. Default: the model's, or 224.", 1
)
flags.DEFINE_string("name", None, "Name of the model. Default: from --model.")
flags.DEFINE_integer("top", 5, "Number of top classes.", 1)
flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.")
flags.DEFINE_integer("port", 8000, "Port to listen at; 0 for any.", 0, 65535)
flags.DEFINE_integer(
    "threads",
    None,
    "Threads of the model, and images to decode at once. Default: the number "
    "of available cores.",
    1,
)
flags.DEFINE_integer("max_batch", 16, "Maximum images per batch.", 1)
flags.DEFINE_float(
    "max_wait_ms",
    0.0,
    "Milliseconds that an image waits for others while nothing is computed.",
    0,
)
_LIMITS = {
    "max_bytes": "Maximum bytes of a body.",
    "max_buffered": "Maximum bytes of all bodies together.",
    "max_pixels": "Maximum pixels of an image.",
    "max_pending": "Maximum images in progress.",
    "max_connections": "Maximum connections.",
    "body_seconds": "Time limit for receiving a request.",
    "answer_seconds": "Time limit for the answer after that.",
}
for _name, _help in _LIMITS.items():
    _default = getattr(Limits, _name)
    if isinstance(_default, int):
        flags.DEFINE_integer(_name, _default, _help, 1)
    else:
        flags.DEFINE_float(_name, _default, _help, 0.01)
FLAGS = flags.FLAGS


def bind(host, port):
    """Binds the port before loading the model.

    Args:
        host: Name or address.
        port: Integer; 0 for any.

    Returns:
        A socket that does not listen yet: connections are refused until the
        model is loaded.

    Raises:
        OSError: If the port is not available, with a remedy.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise OSError(
            f"Cannot listen at {host}, port {port}: {error.strerror}. Pass "
            "another --host or --port."
        ) from error
    return bound


def load_server():
    """Loads the model and runs it once.

    Returns:
        A `uvicorn.Server`.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it can't be read, or flags do not fit it.
    """
    give_way()  # TensorFlow's threads inherit it.
    threads = FLAGS.threads or available_cores()
    # One thread for the model, plus the decoding threads.
    tf.config.threading.set_inter_op_parallelism_threads(1 + threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    logging.info("Loading %s, with %d threads", FLAGS.model, threads)
    return serve.make_server(
        predict.classifier_of(FLAGS),
        name=FLAGS.name or pathlib.Path(FLAGS.model).resolve().stem,
        top=FLAGS.top,
        threads=threads,
        max_batch=FLAGS.max_batch,
        max_wait=FLAGS.max_wait_ms / 1e3,
        **{name: FLAGS[name].value for name in _LIMITS},
    )


def run(bound):
    """Serves until a signal arrives, then answers pending requests.

    Args:
        bound: Socket.
    """
    with ThreadPoolExecutor(1) as loading:
        server = loading.submit(load_server).result()
    # uvicorn repeats the signal when all requests are answered.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    bound.listen(socket.SOMAXCONN)
    host, port = bound.getsockname()[:2]
    logging.info("Serving at http://%s:%d", host, port)
    server.run([bound])


def main(argv):
    """Serves the model."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.INFO)
    try:
        with bind(FLAGS.host, FLAGS.port) as bound:
            run(bound)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(130)
