"""Creates the server for a model."""

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
from convmixer_tf.timing import available_cores


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
    """Creates the server of `convmixer serve`. Loads a model and runs it once.

    Args:
        model: As for `predict_images`.
        name: Name of the model in answers. Defaults to the file's name.
        top: Integer, the default number of top classes.
        threads: Integer, the number of images that are decoded at once.
            Defaults to the number of available cores.
        max_batch: Integer, the maximum number of images in a batch.
        max_wait: Seconds that an image waits for others while nothing is
            computed.
        **limits: The same as the flags of `convmixer serve`: `max_bytes`,
            `max_buffered`, `max_pixels`, `max_pending`, `max_connections`,
            `body_seconds` and `answer_seconds`.

    Returns:
        A `uvicorn.Server`. Its `run` takes a list of sockets and listens at
        port 8000 by default. It returns after SIGTERM or Ctrl-C, when all
        pending requests are answered.

    Raises:
        FileNotFoundError: If the model does not exist.
        TypeError: If a limit is unknown.
        ValueError: If the model can't be read or is not a classifier.

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
