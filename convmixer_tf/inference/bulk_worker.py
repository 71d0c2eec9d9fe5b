"""Computes parts of a bulk prediction, in a separate process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from convmixer_tf.data.evaluation import batch_decoder
from convmixer_tf.inference.bulk_inputs import Part
from convmixer_tf.inference.bulk_inputs import locate
from convmixer_tf.inference.bulk_inputs import read_batches
from convmixer_tf.inference.bulk_inputs import why_not
from convmixer_tf.inference.bulk_outputs import file_of
from convmixer_tf.inference.bulk_outputs import write
from convmixer_tf.inference.classification import Prediction
from convmixer_tf.inference.classification import judged
from convmixer_tf.inference.classifiers import load_classifier
from convmixer_tf.inference.classifiers import load_features
from convmixer_tf.inference.formats import readable_name

_TOO_LARGE = "not written: a feature is too large for float16. Use float32."
# Errors that the user can fix, by name.
ERRORS = {
    error.__name__: error
    for error in (FileNotFoundError, ImportError, OSError, ValueError)
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `map_images` that change the output."""

    features: str | None
    top: int
    batch_size: int
    image_size: int | None
    crop_fraction: float | None
    orientation: str | None


class Worker:
    """Computes parts, in a process that Ray starts.

    An error that the user can fix is returned as a row. If it were raised, Ray
    would retry the part.
    """

    def __init__(self, model, output, settings, cpus):
        self._output, self._settings = output, settings
        self._error = None
        with contextlib.suppress(RuntimeError):  # TensorFlow has started.
            tf.config.threading.set_intra_op_parallelism_threads(cpus)
            # With one thread, Python functions in a graph would deadlock.
            tf.config.threading.set_inter_op_parallelism_threads(max(2, cpus))
            for gpu in tf.config.list_physical_devices("GPU"):  # Shared.
                tf.config.experimental.set_memory_growth(gpu, True)
        try:
            load = load_features if settings.features else load_classifier
            self._model = load(
                model,
                settings.image_size,
                settings.crop_fraction,
                settings.orientation,
            )
            self._decode = batch_decoder(
                self._model.image_size,
                settings.batch_size,
                self._model.crop_fraction,
                self._model.orientation,
            )
        except tuple(ERRORS.values()) as error:
            self._error = error

    def __call__(self, row):
        name = file_of(row["number"])
        part = Part(*json.loads(zlib.decompress(row["part"])))
        answer = {"images": part.count, "kind": "", "error": ""}
        try:
            if self._error:
                raise self._error
            filesystem, folder = locate(self._output)
            if not filesystem.get_file_info(f"{folder}/{name}").is_file:
                found = self._encode(list(self._predict(part)))
                write(self._output, name, found)
        except tuple(ERRORS.values()) as error:
            kinds = (k for k, x in ERRORS.items() if isinstance(error, x))
            answer |= {"images": 0, "kind": next(kinds), "error": str(error)}
        return answer

    def _predict(self, part):
        """Yields a `Prediction` for each image of a part."""
        dtype = self._settings.features or "float64"
        for images, pixels, is_read in _ahead(self._decoded(part)):
            rows = iter(())
            if is_read.any():
                outputs = np.asarray(self._model.predict(pixels[is_read]))
                with np.errstate(over="ignore"):
                    rows = zip(outputs, outputs.astype(dtype), strict=True)
            for (name, content), seen in zip(images, is_read, strict=True):
                if not seen:
                    yield Prediction(name, None, why_not(part, name, content))
                    continue
                exact, rounded = next(rows)
                if np.isfinite(exact).all() != np.isfinite(rounded).all():
                    yield Prediction(name, None, _TOO_LARGE)
                else:
                    yield judged(name, rounded)

    def _decoded(self, part):
        for images in read_batches(part, self._settings.batch_size):
            pixels, is_read = self._decode([x or b"" for _, x in images])
            yield images, pixels[: len(images)], is_read[: len(images)]

    def _encode(self, found):
        """Makes a Parquet file of predictions."""
        import pyarrow as pa
        from pyarrow import parquet

        columns = {"path": pa.array([readable_name(x.image) for x in found])}
        if self._settings.features:
            kind = pa.from_numpy_dtype(self._settings.features)
            columns["features"] = pa.array(
                [x.probabilities for x in found],
                pa.list_(kind, self._model.classes),
            )
        else:
            names = self._model.class_names
            best = [x.best(self._settings.top, names) or None for x in found]
            for key, index, kind in (
                ("classes", 0, pa.string()),
                ("indices", 1, pa.int32()),
                ("probabilities", 2, pa.float64()),
            ):
                columns[key] = pa.array(
                    [x and [row[index] for row in x] for x in best],
                    pa.list_(kind),
                )
        columns["error"] = pa.array([x.error for x in found], pa.string())
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table(columns), sink)
        return sink.getvalue()


def _ahead(items):
    """Yields items and computes the next one in the meantime."""
    items = iter(items)
    with ThreadPoolExecutor(1) as pool:
        item = pool.submit(next, items, None)
        while (now := item.result()) is not None:
            item = pool.submit(next, items, None)
            yield now
