"""Runs exported files in their runtimes, with a common interface."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convmixer_tf.export.litert import LiteRTModel
from convmixer_tf.export.litert import compiled_predict
from convmixer_tf.export.tflite_model import count
from convmixer_tf.export.tflite_model import describe_tflite
from convmixer_tf.files import PathLike
from convmixer_tf.models import load_model

BATCH_SIZE = 32
_ONNX_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
_WORKER = pathlib.Path(__file__).with_name("saved_model_worker.py")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """An exported file that is loaded in a runtime.

    Attributes:
        name: Name and version of the runtime.
        description: The applicable entries of `describe_tflite`.
        batch_size: Integer, images per call.
        timed: Function of a batch of pixels that returns the outputs and the
            processor time, in seconds.
    """

    name: str
    description: dict
    batch_size: int
    timed: Callable

    def run(self, images):
        """Runs a batch.

        Args:
            images: float32 array of pixels, (batch, height, width, channels),
                of at most `batch_size` images.

        Returns:
            Array of shape (batch, ...), and the seconds of processor time.

        Raises:
            ValueError: If the file takes images of another shape, or fails.
        """
        shape = self.description["inputs"][0]["shape"][1:]
        fits = len(shape) == images.ndim - 1 and all(
            expected in (None, actual)
            for expected, actual in zip(shape, images.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"The artifact takes images of shape {tuple(shape)}. "
                f"Received: {images.shape[1:]}"
            )
        return self.timed(images)


def predict(runtime, images, max_pixel=255):
    """Runs many images, batch by batch.

    Args:
        runtime: A `Runtime`.
        images: Array of pixels in [0, 255], (images, height, width, channels).
        max_pixel: Value of a white pixel in the runtime.

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


@contextlib.contextmanager
def open_runtime(
    path: PathLike,
    *,
    runtime: str | None = None,
    threads: int = 1,
    signature: str | None = None,
) -> Any:
    """Opens an exported file in a runtime that did not write it.

    Args:
        path: Path of a SavedModel folder or a `.tflite`, `.onnx` or `.keras`
            file.
        runtime: One of `RUNTIMES`. `None` uses the default of the format. For
            `.tflite`, it is LiteRT; `"litert_compiled"`, its newer interface,
            and `"mediapipe"` are also possible. For `.onnx`, it is onnxruntime;
            `"openvino"` and `"openvino_bfloat16"` are also possible.
        threads: Integer, the number of threads. Keras and MediaPipe ignore it.
        signature: Signature of a SavedModel to call. Defaults to
            `"serving_default"`.

    Yields:
        A `Runtime`.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If the content does not fit the suffix, or it doesn't run.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"Path `{path}` does not exist.")
    default = _default_runtime(path)
    runtime = runtime or default
    if runtime not in (default, *_OTHERS.get(default, ())):
        raise ValueError(
            f"`{path}` is for the runtime {default}. Received: {runtime}"
        )
    arguments = (signature,) if signature and runtime == "saved_model" else ()
    with _RUNTIMES[runtime](path, threads, *arguments) as opened:
        yield opened


def _default_runtime(path):
    suffixes = {".keras": "keras", ".onnx": "onnxruntime", ".tflite": "litert"}
    if path.is_dir():
        return "saved_model"
    if path.suffix not in suffixes:
        raise ValueError(
            "The artifact must be a SavedModel folder or a file ending in "
            f"{', '.join(suffixes)}. Received: `{path}`"
        )
    return suffixes[path.suffix]


def keras_runtime(model):
    """Creates a `Runtime` for a `keras.Model`, in this process."""
    call = tf.function(functools.partial(model, training=False))
    description = _describe(
        [_tensor(x.name, x.shape, x.dtype) for x in model.inputs],
        [_tensor(x.name, x.shape, x.dtype) for x in model.outputs],
        [type(layer).__name__ for layer in model.layers],
    )
    return Runtime(
        f"keras {keras.__version__}",
        description,
        BATCH_SIZE,
        _timed(lambda images: call(images).numpy()),
    )


@contextlib.contextmanager
def _open_keras(path, threads):
    del threads  # TensorFlow's threads in this process are used.
    yield keras_runtime(load_model(path))


@contextlib.contextmanager
def _open_litert(path, threads):
    model = LiteRTModel(path, threads)
    name = _versioned("ai-edge-litert")
    yield Runtime(name, describe_tflite(path), 1, _timed(model.predict))


@contextlib.contextmanager
def _open_compiled(path, threads):
    description = describe_tflite(path)
    predict = compiled_predict(path, threads)
    scale, zero_point = (
        description["outputs"][0][name] for name in ("scale", "zero_point")
    )

    def run(images):
        outputs = np.float32(predict(images))
        return scale * (outputs - zero_point) if scale else outputs

    name = f"{_versioned('ai-edge-litert')}, CompiledModel"
    yield Runtime(name, description, 1, _timed(run))


@contextlib.contextmanager
def _open_mediapipe(path, threads):
    del threads  # MediaPipe chooses them.
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core import base_options
    except ImportError as error:
        raise ImportError(
            "Running MediaPipe's ImageClassifier needs `mediapipe`: "
            "pip install mediapipe."
        ) from error
    description = describe_tflite(path)
    options = vision.ImageClassifierOptions(
        base_options=base_options.BaseOptions(model_asset_path=os.fspath(path))
    )
    try:
        classifier = vision.ImageClassifier.create_from_options(options)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"MediaPipe can't classify with `{path}`: {error}"
        ) from error

    def classify(images):
        image = np.uint8(np.rint(images[0]))
        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, image)
        (head,) = classifier.classify(image).classifications
        scores = np.zeros((1, len(head.categories)), np.float32)
        for category in head.categories:
            scores[0, category.index] = category.score
        return scores

    with contextlib.closing(classifier):
        yield Runtime(_versioned("mediapipe"), description, 1, _timed(classify))


@contextlib.contextmanager
def _open_onnx(path, threads):
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "Running ONNX files needs `onnx` and `onnxruntime`. Install "
            'the extra: pip install "convmixer_tf[export]".'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        nodes = onnx.load(path).graph.node
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # Of many kinds, in both libraries.
        raise ValueError(
            f"`{path}` is not a complete ONNX file: {error}"
        ) from error
    (pixels,) = session.get_inputs()

    def run(images):
        if pixels.type == "tensor(uint8)":
            images = np.uint8(np.rint(images))
        return session.run(None, {pixels.name: images})[0]

    standard = ("", "ai.onnx")
    yield Runtime(
        _versioned("onnxruntime"),
        _describe(
            [_onnx_tensor(tensor) for tensor in session.get_inputs()],
            [_onnx_tensor(tensor) for tensor in session.get_outputs()],
            [node.op_type for node in nodes],
            {node.op_type for node in nodes if node.domain not in standard},
            quantization=_onnx_quantization(nodes),
        ),
        1 if pixels.shape[0] == 1 else BATCH_SIZE,
        _timed(run),
    )


@contextlib.contextmanager
def _open_openvino(path, threads, precision="f32"):
    try:
        import onnx
        import openvino
    except ImportError as error:
        raise ImportError(
            "OpenVINO needs `onnx` and `openvino`: pip install onnx openvino."
        ) from error
    try:
        nodes = onnx.load(path).graph.node
        compiled = openvino.Core().compile_model(
            os.fspath(path),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": 1,
            },
        )
    except Exception as error:  # Of many kinds, in both libraries.
        raise ValueError(f"OpenVINO can't run `{path}`: {error}") from error
    (pixels,), (outputs,) = compiled.inputs, compiled.outputs
    shape, dtype = _openvino_shape(pixels), pixels.get_element_type().to_dtype()

    def run(images):
        if dtype == np.uint8:
            images = np.uint8(np.rint(images))
        return compiled(images)[outputs].copy()

    yield Runtime(
        f"{_versioned('openvino')} ({precision})",
        _describe(
            [_tensor(pixels.any_name, shape, dtype.name)],
            [_tensor(outputs.any_name, _openvino_shape(outputs), "float32")],
            [node.op_type for node in nodes],
            quantization=_onnx_quantization(nodes),
        ),
        shape[0] or BATCH_SIZE,
        _timed(run),
    )


def _openvino_shape(tensor):
    return [
        None if side.is_dynamic else side.get_length()
        for side in tensor.get_partial_shape()
    ]


@contextlib.contextmanager
def _open_saved_model(path, threads, signature="serving_default"):
    """Opens it in a separate process that can't import this package."""
    with subprocess.Popen(
        # -I ignores PYTHONPATH, so the process can't find this package.
        [sys.executable, "-I", _WORKER, path, signature, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as worker:

        def receive():
            try:
                answer, error = pickle.load(worker.stdout)
            except (EOFError, pickle.UnpicklingError):
                answer, error = None, "its process died"
            if error:
                raise ValueError(f"The SavedModel does not run: {error}")
            return answer

        def run(images):
            with contextlib.suppress(BrokenPipeError):  # `receive` reports it.
                pickle.dump(images, worker.stdin)
                worker.stdin.flush()
            return receive()

        try:
            pixels, outputs, operators = receive()
            pixels = _tensor(*pixels)
            yield Runtime(
                f"tf.saved_model.load, TensorFlow {tf.__version__}",
                _describe([pixels], [_tensor(*outputs)], operators),
                pixels["shape"][0] or BATCH_SIZE,
                run,
            )
        finally:
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.close()


_RUNTIMES: dict[str, Callable] = {
    "keras": _open_keras,
    "litert": _open_litert,
    "litert_compiled": _open_compiled,
    "mediapipe": _open_mediapipe,
    "onnxruntime": _open_onnx,
    "openvino": _open_openvino,
    "openvino_bfloat16": functools.partial(_open_openvino, precision="bf16"),
    "saved_model": _open_saved_model,
}
RUNTIMES = tuple(_RUNTIMES)
# Alternative runtimes for each default runtime.
_OTHERS = {
    "litert": ("litert_compiled", "mediapipe"),
    "onnxruntime": ("openvino", "openvino_bfloat16"),
}


def _timed(function):
    """Makes a function also return its processor time."""

    def timed(images):
        start = time.process_time()
        outputs = function(images)
        return outputs, time.process_time() - start

    return timed


def _describe(
    inputs, outputs, operators, custom_operators=(), quantization="float32"
):
    """Describes a file without delegates, like `describe_tflite`."""
    return {
        "quantization": quantization,
        "inputs": inputs,
        "outputs": outputs,
        "operators": count(operators),
        "custom_operators": sorted(custom_operators),
        "delegation": None,
    }


def _tensor(name, shape, dtype):
    return {
        "name": name,
        "shape": list(shape),
        "dtype": dtype,
        "scale": None,
        "zero_point": None,
    }


def _onnx_quantization(nodes):
    kinds = {node.op_type for node in nodes}
    if "DynamicQuantizeLinear" in kinds:
        return "dynamic"
    return "int8" if "QuantizeLinear" in kinds else "float32"


def _onnx_tensor(tensor):
    shape = [side if isinstance(side, int) else None for side in tensor.shape]
    return _tensor(
        tensor.name, shape, _ONNX_TYPES.get(tensor.type, tensor.type)
    )


def _versioned(package):
    return f"{package} {importlib.metadata.version(package)}"
