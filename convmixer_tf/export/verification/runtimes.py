"""Exported files in the runtimes that they are for, all used alike.

A runtime has `name`, with its version; `batch_size`, how many images it takes
at a time; `description`, what `describe_tflite` returns, as far as it applies;
and `run`, which takes a batch of pixels and gives its outputs and the seconds
of processor time that this took.
"""

import contextlib
import functools
import importlib.metadata
import os
import pathlib
import pickle
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.verification.inspection import count
from convmixer_tf.export.verification.inspection import describe_tflite
from convmixer_tf.models import load_model

BATCH_SIZE = 32
_ONNX_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
_WORKER = pathlib.Path(__file__).with_name("saved_model_worker.py")


def predict(runtime, images, max_pixel=255):
    """Runs a runtime on many images.

    Args:
        runtime: What `open_runtime` returns.
        images: Array of pixels in [0, 255], (images, height, width, channels).
        max_pixel: What the runtime takes for white.

    Returns:
        Array of shape (images, ...).

    Raises:
        ValueError: If the runtime takes images of another shape.
    """
    size = runtime.batch_size
    scale = np.float32(max_pixel / 255)
    return np.concatenate(
        [
            runtime.run(scale * np.float32(images[start : start + size]))[0]
            for start in range(0, len(images), size)
        ]
    )


def timed(function, *arguments):
    """Calls a function; returns its result and its processor time."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


class KerasRuntime:
    """A Keras model in this process.

    Args:
        model: A `keras.Model`.
    """

    name = f"keras {keras.__version__}"
    batch_size = BATCH_SIZE

    def __init__(self, model):
        self._call = tf.function(functools.partial(model, training=False))
        kinds = [type(layer).__name__ for layer in model.layers]
        self.description = {
            "scheme": "float32",
            "inputs": _keras_tensors(model.inputs),
            "outputs": _keras_tensors(model.outputs),
            "operators": count(kinds),
            "custom_operators": [],
            "delegation": None,
        }

    def run(self, images):
        _check_shape(self.description["inputs"][0]["shape"], images)
        return timed(lambda: self._call(images).numpy())


def _keras_tensors(tensors):
    return [
        _tensor(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors
    ]


class LiteRTRuntime:
    """A `.tflite` file in LiteRT."""

    batch_size = 1

    def __init__(self, path, threads):
        self.name = _versioned("ai-edge-litert")
        self.description = describe_tflite(path)
        self._model = LiteRTModel(path, threads)

    def run(self, images):
        return timed(self._model.predict, images)


class MediaPipeRuntime:
    """A `.tflite` file in MediaPipe's ImageClassifier."""

    batch_size = 1

    def __init__(self, path, threads):
        del threads  # MediaPipe decides itself.
        vision, base = _import_mediapipe()
        self.name = _versioned("mediapipe")
        self.description = describe_tflite(path)
        options = vision.ImageClassifierOptions(
            base_options=base.BaseOptions(model_asset_path=os.fspath(path))
        )
        try:
            self._classifier = vision.ImageClassifier.create_from_options(
                options
            )
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"MediaPipe can't classify with `{path}`: {error}"
            ) from error

    def run(self, images):
        _check_shape(self.description["inputs"][0]["shape"], images)
        return timed(self._classify, np.uint8(np.rint(images[0])))

    def _classify(self, image):
        import mediapipe

        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, image)
        (head,) = self._classifier.classify(image).classifications
        scores = np.zeros((1, len(head.categories)), np.float32)
        for category in head.categories:
            scores[0, category.index] = category.score
        return scores

    def close(self):
        self._classifier.close()


def _import_mediapipe():
    try:
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core import base_options
    except ImportError as error:
        raise ImportError(
            "Running MediaPipe's ImageClassifier needs `mediapipe`: "
            "pip install mediapipe."
        ) from error
    return vision, base_options


class OnnxRuntime:
    """An `.onnx` file in onnxruntime."""

    def __init__(self, path, threads):
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "Running ONNX files needs `onnx` and `onnxruntime`. Install "
                'the extra: pip install "convmixer_tf[export]".'
            ) from error
        self.name = _versioned("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            graph = onnx.load(path).graph
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # Of many kinds, in both libraries.
            raise ValueError(
                f"`{path}` is not a whole ONNX file: {error}"
            ) from error
        (self._input,) = self._session.get_inputs()
        self.batch_size = 1 if self._input.shape[0] == 1 else BATCH_SIZE
        self.description = {
            "scheme": "float32",
            "inputs": _onnx_tensors(self._session.get_inputs()),
            "outputs": _onnx_tensors(self._session.get_outputs()),
            "operators": count(node.op_type for node in graph.node),
            "custom_operators": sorted(
                {
                    n.op_type
                    for n in graph.node
                    if n.domain not in ("", "ai.onnx")
                }
            ),
            "delegation": None,
        }

    def run(self, images):
        _check_shape(self._input.shape, images)
        if self._input.type == "tensor(uint8)":
            images = np.uint8(np.rint(images))
        feed = {self._input.name: images}
        return timed(lambda: self._session.run(None, feed)[0])


def _onnx_tensors(tensors):
    return [
        _tensor(
            tensor.name,
            [side if isinstance(side, int) else None for side in tensor.shape],
            _ONNX_TYPES.get(tensor.type, tensor.type),
        )
        for tensor in tensors
    ]


class SavedModelRuntime:
    """A SavedModel in a process of its own, which can't import our package."""

    def __init__(self, path, threads, signature="serving_default"):
        self.name = f"tf.saved_model.load, TensorFlow {tf.__version__}"
        self._worker = subprocess.Popen(
            # -I: not even PYTHONPATH leads to us.
            [sys.executable, "-I", _WORKER, path, signature, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.description = self._receive()
        except ValueError:
            self.close()
            raise
        self._shape = self.description["inputs"][0]["shape"]
        self.batch_size = self._shape[0] or BATCH_SIZE

    def run(self, images):
        _check_shape(self._shape, images)
        with contextlib.suppress(BrokenPipeError):  # Told by `_receive`.
            pickle.dump(images, self._worker.stdin)
            self._worker.stdin.flush()
        return self._receive()

    def _receive(self):
        try:
            answer, error = pickle.load(self._worker.stdout)
        except (EOFError, pickle.UnpicklingError):
            answer, error = None, "its process died"
        if error:
            raise ValueError(f"The SavedModel does not run: {error}")
        return answer

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._worker.stdin.close()
        self._worker.stdout.close()
        self._worker.wait()


def _check_shape(expected, images):
    """Raises `ValueError` unless images have a shape, batches aside."""
    sides = [None if not isinstance(x, int) else x for x in expected[1:]]
    fits = len(sides) == images.ndim - 1 and all(
        side in (None, actual)
        for side, actual in zip(sides, images.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"The artefact takes images of shape {tuple(sides)}. "
            f"Received: {images.shape[1:]}"
        )


def _tensor(name, shape, dtype):
    return {
        "name": name,
        "shape": list(shape),
        "dtype": dtype,
        "scale": None,
        "zero_point": None,
    }


def _versioned(package):
    return f"{package} {importlib.metadata.version(package)}"


_RUNTIMES = {
    "keras": lambda path, threads: KerasRuntime(load_model(path)),
    "litert": LiteRTRuntime,
    "mediapipe": MediaPipeRuntime,
    "onnxruntime": OnnxRuntime,
    "saved_model": SavedModelRuntime,
}
RUNTIMES = tuple(_RUNTIMES)


def _runtime_for(path):
    suffixes = {
        ".keras": "keras",
        ".onnx": "onnxruntime",
        ".tflite": "litert",
    }
    if path.is_dir():
        return "saved_model"
    if path.suffix not in suffixes:
        raise ValueError(
            "The artefact must be a SavedModel's folder or a file ending in "
            f"{', '.join(suffixes)}. Received: `{path}`"
        )
    return suffixes[path.suffix]


@contextlib.contextmanager
def open_runtime(path, *, runtime=None, threads=1, signature=None):
    """Opens an exported file in a runtime that is not the one it came from.

    Args:
        path: Path of a SavedModel's folder or of a `.tflite`, `.onnx` or
            `.keras` file.
        runtime: One of `RUNTIMES`; `None` takes the one that the file is for,
            and LiteRT for `.tflite`, of which `"mediapipe"` is the other.
        threads: Integer, how many threads to use. Keras and MediaPipe decide
            themselves.
        signature: Which signature of a SavedModel to call. Defaults to
            `"serving_default"`.

    Yields:
        The runtime.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ImportError: If the runtime is not installed.
        ValueError: If it is not what its name says, or doesn't run.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is nothing at `{path}`.")
    fitting = _runtime_for(path)
    runtime = runtime or fitting
    if runtime != fitting and (runtime, fitting) != ("mediapipe", "litert"):
        raise ValueError(
            f"`{path}` is for the runtime {fitting}. Received: {runtime}"
        )
    arguments = (signature,) if signature and runtime == "saved_model" else ()
    opened = _RUNTIMES[runtime](path, threads, *arguments)
    try:
        yield opened
    finally:
        if hasattr(opened, "close"):
            opened.close()
