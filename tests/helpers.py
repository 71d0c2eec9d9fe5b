"""Helpers of several tests: asymmetric inputs, random weights, scripts."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import resource
import runpy
import struct
import subprocess
import sys
import traceback
from unittest import mock

import keras
import numpy as np
from absl import flags
from absl import logging
from absl.testing import flagsaver
from PIL import Image
from scipy import special

from convmixer_tf.weights import timm_state_dict
from convmixer_tf.weights.saving import write_safetensors

ROOT = pathlib.Path(__file__).parents[1]
# An EXIF description of two characters.
OTHER_TAG = (0x010E, 2, 2, 0x4142)


def asymmetric_image(height=45, width=31, channels=3, batch=2, seed=0):
    """Returns uint8 pixels that any flip, transpose or channel swap changes."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 128, (batch, height, width, channels))
    rows = np.linspace(0, 60, height)[None, :, None, None]
    columns = np.linspace(0, 30, width)[None, None, :, None] ** 1.1
    channel = 9 * np.arange(channels)
    return (noise + rows + columns + channel).clip(0, 255).astype("uint8")


def randomize(model, seed=0):
    """Gives every weight a random value, batch statistics included.

    The scale of kernels keeps the magnitude of activations.
    """
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, kind = weight.shape, weight.path.rsplit("/", 1)[1]
        if kind in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
            if kind == "gamma":
                value *= rng.choice([-1, 1, 1, 1], shape)
        elif kind == "kernel":
            value = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
            if shape[3:] == (1,):  # Depthwise: channels are not inputs.
                value *= np.sqrt(shape[2])
        else:
            value = rng.normal(0, 0.2, shape)
        weight.assign(value)
    return model


def tell_apart(model, images, labels):
    """Sets a classifier's head to separate the means of the classes."""
    body = keras.Model(model.inputs, model.get_layer("avg_pool").output)
    features = body.predict(images, verbose=0)
    classes = range(model.output_shape[-1])
    kernel = np.stack([features[labels == k].mean(0) for k in classes], 1)
    kernel -= kernel.mean(axis=1, keepdims=True)
    bias = -features.mean(axis=0) @ kernel
    scale = 3 / np.std(features @ kernel + bias)
    model.get_layer("predictions").set_weights([kernel * scale, bias * scale])


def relative_difference(actual, expected):
    """Returns the largest difference relative to the largest value."""
    actual, expected = np.float64(actual), np.float64(expected)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def graph_nodes(definition):
    """Lists the nodes of a graph definition and of its functions."""
    functions = [function.node_def for function in definition.library.function]
    return [node for part in (definition.node, *functions) for node in part]


def run_python(code, *arguments, **environment):
    """Runs `code` in a new Python process and returns its stdout."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_script(script, *arguments, before=""):
    """Runs a script of the repository, after the code `before`.

    Returns:
        The finished process.
    """
    script = ROOT / script
    path = os.pathsep.join([str(script.parent), *filter(None, sys.path)])
    code = (
        f"import runpy, sys\n{before}\nsys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@contextlib.contextmanager
def files_up_to(size):
    """Limits the size of files, like a quota or a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def script_forgotten(script):
    """Makes a script's neighbors importable and forgets them afterwards.

    Scripts define flags of the same names.
    """
    folder = str((ROOT / script).parent)
    _forget_commands()
    known, modules = set(flags.FLAGS), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        _forget_commands()
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith((str(ROOT / "recipes"), str(ROOT / "export"))):
                del sys.modules[name]


def _forget_commands():
    """Forgets the modules of `convmixer_tf.cli` with flags, and their flags."""
    others = {"commands", "phone", "phone_report", "steps"}  # Tests patch them.
    for name in list(sys.modules):
        package, _, module = name.rpartition(".")
        if package != "convmixer_tf.cli" or module in others:
            continue
        for flag in flags.FLAGS.flags_by_module_dict().get(name, []):
            if flag.name in flags.FLAGS:
                delattr(flags.FLAGS, flag.name)
        del sys.modules[name]
        # `from convmixer_tf.cli import name` searches there first.
        vars(sys.modules["convmixer_tf.cli"]).pop(module, None)


def call_script(script, *arguments):
    """Runs a script like `run_script`, but in this process.

    This avoids the import of TensorFlow and turns warnings into errors.
    """
    argv = [str(ROOT / script), *map(str, arguments)]
    output, errors = io.StringIO(), io.StringIO()
    with (
        script_forgotten(script),
        flagsaver.flagsaver(),
        _log_written_to(errors),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        mock.patch.object(sys, "argv", argv),
    ):
        try:
            runpy.run_path(argv[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                print(code, file=errors)
                code = 1
        except Exception:
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(
        argv, code, output.getvalue(), errors.getvalue()
    )


@contextlib.contextmanager
def _log_written_to(file):
    """Makes absl log to `file`, as in a new process."""
    handler, logger = logging.get_absl_handler(), logging.get_absl_logger()
    filters = handler.filters[:], logger.filters[:]
    level, known = logging.get_verbosity(), handler in logger.root.handlers
    stream = handler.python_handler.setStream(file)
    handler.filters, logger.filters = [], []
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        handler.python_handler.setStream(stream)
        handler.filters, logger.filters = filters
        if not known:
            logger.root.removeHandler(handler)


def write_images(folder, classes, count, size):
    """Writes `count` noise PNG files per class. Each class has one color."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 120, (size, size, 3), np.uint8)
            image[..., 2 - label] += 120
            Image.fromarray(image).save(folder / name / f"{i}.png")


def read_images_once(monkeypatch, known):
    """Caches the results of `data.read_images` in a dictionary.

    A new pipeline takes a second to trace.
    """
    from convmixer_tf import data  # Imports TensorFlow.

    def read(dataset, *size, read=data.read_images, **how):
        key = tuple(dataset.names.numpy()), size, *how.items()
        if key not in known:
            known[key] = read(dataset, *size, **how)
        return known[key]

    monkeypatch.setattr(data, "read_images", read)


def exif(*entries, order="<", start=8):
    """Encodes EXIF with entries (tag, type, number, value)."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    tiff = mark + struct.pack(f"{order}IH", start, len(entries))
    for entry in entries:
        tiff += struct.pack(f"{order}HHIHxx", *entry)
    return b"Exif\0\0" + tiff + bytes(4)


def jpeg(content=b"", size=(21, 34), kind="JPEG"):
    """Encodes an asymmetric image with EXIF entries."""
    file = io.BytesIO()
    image = asymmetric_image(*size, batch=1)[0]
    options = {"exif": content} if content else {}
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def oriented(orientation, order="<", kind="JPEG"):
    """Encodes a photograph with an orientation; `None` for no EXIF."""
    if orientation is None:
        return jpeg(kind=kind)
    tag = (0x0112, 3, 1, orientation)
    return jpeg(exif(OTHER_TAG, tag, order=order), kind=kind)


def write_packaged(model, folder):
    """Writes a ConvMixer-256/8 like the packaged one, in float16."""
    path = folder / "convmixer_256_8.safetensors"
    rounded = {
        name: value if value.ndim == 0 else value.astype("float16")
        for name, value in timm_state_dict(model).items()
    }
    write_safetensors(rounded, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest}))


def numpy_convmixer(weights, images, activation="gelu"):
    """ConvMixer in plain NumPy, float64: an independent implementation.

    Args:
        weights: Dictionary of arrays by the weights' paths in our models.
        images: Pixels in [0, 255], (batch, height, width, 3).
        activation: `"gelu"` or `"relu"`.

    Returns:
        Logits, (batch, classes).
    """
    weights = {path: np.float64(value) for path, value in weights.items()}
    act = {
        "gelu": lambda x: x * 0.5 * (1 + special.erf(x / np.sqrt(2))),
        "relu": lambda x: np.maximum(x, 0),
    }[activation]

    def norm(x, name):
        gamma, beta, mean, variance = (
            weights[f"{name}/{kind}"]
            for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def depthwise(x, kernel):
        side = len(kernel)
        before = (side - 1) // 2
        after = side - 1 - before
        height, width = x.shape[1:3]
        x = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
        return sum(
            x[:, i : i + height, j : j + width] * kernel[i, j, :, 0]
            for i in range(side)
            for j in range(side)
        )

    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    kernel = weights["patch_embed/conv/kernel"]
    patch = len(kernel)
    batch, rows, columns = (
        len(x),
        x.shape[1] // patch,
        x.shape[2] // patch,
    )
    x = x[:, : rows * patch, : columns * patch]
    x = x.reshape(batch, rows, patch, columns, patch, 3)
    x = np.einsum("brpcqi,pqio->brco", x, kernel)
    x = norm(act(x + weights["patch_embed/conv/bias"]), "patch_embed/norm")
    for i in range(sum(path.endswith("pointwise/bias") for path in weights)):
        block = f"block_{i}"
        y = depthwise(x, weights[f"{block}/depthwise/kernel"])
        y = act(y + weights[f"{block}/depthwise/bias"])
        x = x + norm(y, f"{block}/depthwise_norm")
        y = x @ weights[f"{block}/pointwise/kernel"][0, 0]
        y = act(y + weights[f"{block}/pointwise/bias"])
        x = norm(y, f"{block}/pointwise_norm")
    x = x.mean((1, 2)) @ weights["predictions/kernel"]
    return x + weights["predictions/bias"]
