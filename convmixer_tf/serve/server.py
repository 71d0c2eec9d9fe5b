"""From a model to a server that waits for images."""

import os
import pathlib

import uvicorn

from convmixer_tf.files import PathLike
from convmixer_tf.inference.classifiers import Classifier
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.serve.application import Limits
from convmixer_tf.serve.application import Service
from convmixer_tf.serve.batching import BatchedClassifier
from convmixer_tf.serve.connections import uvicorn_server
from convmixer_tf.serve.images import Decoder


def make_server(
    model: PathLike | Classifier = "256_8",
    *,
    name: str | None = None,
    top: int = 5,
    threads: int | None = None,
    max_batch: int = 16,
    max_wait: float = 0.0,
    **limits: float,
) -> uvicorn.Server:
    """Makes the server of `convmixer serve`: loads a model, and runs it once.

    Args:
        model: As for `predict_images`.
        name: Name of the model in answers. Defaults to that of its file.
        top: Integer, how many of the best classes to name unless a request
            says otherwise.
        threads: Integer, images that are decoded at once. Defaults to the
            cores that this process may use.
        max_batch: Integer, the most images of a batch.
        max_wait: Seconds that an image waits for others while nothing is
            being computed.
        **limits: As the flags of `convmixer serve`: `max_bytes`,
            `max_buffered`, `max_pixels`, `max_pending`, `max_connections`,
            `body_seconds` and `answer_seconds`.

    Returns:
        A `uvicorn.Server`. Its `run` takes a list of sockets, listens at port
        8000 without, and returns when all is answered that had begun at
        SIGTERM or Ctrl-C.

    Raises:
        FileNotFoundError: If there is no such model.
        TypeError: If there is no such limit.
        ValueError: If the model can't be read or is no classifier.

    Example:

    ```python
    make_server("runs/mine/model.keras", max_pending=16).run()
    ```
    """
    bounds = Limits(**limits)  # type: ignore[arg-type]
    if not isinstance(model, Classifier):
        name = name or pathlib.Path(model).resolve().stem
        model = load_classifier(model)
    batched = BatchedClassifier(model, max_batch, max_wait)
    batched.warm_up()
    decoder = Decoder(
        model.image_size,
        model.crop_fraction,
        model.orientation,
        bounds.max_pixels,
    )
    decoder.warm_up(batched.blank)
    service = Service(
        decoder,
        batched,
        bounds,
        name=name or "model",
        class_names=model.class_names,
        top=top,
        threads=threads or available_cores(),
    )
    return uvicorn_server(service, bounds)


def available_cores():
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # On Linux.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
