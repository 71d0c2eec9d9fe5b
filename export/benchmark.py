"""Benchmarks all export formats of one model in their runtimes.

    taskset -c 0 python export/benchmark.py --model 256_8 --images FOLDER \
        --split test --limit 10000 --calibration FOLDER --output artifacts.json

It exports the model as SavedModel, TF Hub module, ONNX (float32, int8) and
TFLite (float32, float16, dynamic, int4, int8). `--artifact NAME=PATH` adds
existing files. It compares all of them on the same images: size, top-1
accuracy, agreement with the Keras model, and time per image, measured in turns.
It writes JSON and prints a Markdown table.

`--peers` instead compares runtimes for the same weights on a CPU: Keras'
`predict` and `predict_on_batch`, onnxruntime, OpenVINO (also in bfloat16),
LiteRT, and timm's ConvMixer with torch.compile. It needs
`pip install openvino torch timm`. `plot_peers.py` draws the results.

Time: a forward pass of each format over the images; five minutes of processor
time for a CIFAR-10 network and 10,000 images. Result: `results/artifacts.json`,
from an earlier version of this script, export/benchmark_artifacts.py of commit
f1af6dd.
"""

import contextlib
import functools
import importlib.util
import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from absl import logging

from convmixer_tf import progress
from convmixer_tf.cli import calibration_flags
from convmixer_tf.cli import export_flags
from convmixer_tf.export import export_onnx
from convmixer_tf.export import export_saved_model
from convmixer_tf.export import export_tfhub
from convmixer_tf.export import export_tflite
from convmixer_tf.export.verification import Runtime
from convmixer_tf.export.verification import compare_classifiers
from convmixer_tf.export.verification import open_runtime
from convmixer_tf.export.verification import predict
from convmixer_tf.files import check_destination
from convmixer_tf.files import dump_json
from convmixer_tf.files import size_of
from convmixer_tf.timing import machine
from convmixer_tf.weights import timm_state_dict

KERAS = "Keras"
QUANTIZATIONS = ("float32", "float16", "dynamic", "int4", "int8")

_TURNS = flags.DEFINE_integer("turns", 31, "Timed runs per artifact.", 3)
_ARTIFACT = flags.DEFINE_multi_string(
    "artifact", [], "NAME=PATH of another file or folder; repeatable."
)
_PEERS = flags.DEFINE_bool(
    "peers", False, "Compare runtimes of the same weights instead of formats."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Images in a timed run.", 1)
flags.mark_flags_as_required(["model", "output", "images", "calibration"])


def say(text):
    """Logs what happens, and repeats it while it takes long."""
    logging.info("%s", text)
    progress.note("%s", text)


def further_artifacts():
    """Parses `--artifact` to a dictionary from names to paths."""
    found = {}
    for text in _ARTIFACT.value:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise ValueError(
                f"`--artifact` must be NAME=PATH. Received: {text}"
            )
        if not pathlib.Path(path).exists():
            raise FileNotFoundError(f"Path `{path}` does not exist.")
        found[name] = pathlib.Path(path)
    return found


def export_all(model, names, calibration, folder, threads):
    """Exports a model in every format.

    Returns:
        Dictionary from names to pairs: a path, and a function that opens it as
        a context manager of a `Runtime`.
    """
    size = model.input_shape[1]
    paths = {
        KERAS: folder / "model.keras",
        "SavedModel": folder / "saved_model",
        "TF Hub module": folder / "module",
    }
    say("Exporting")
    model.save(paths[KERAS])
    export_saved_model(
        model, paths["SavedModel"], class_names=names, image_size=size
    )
    export_tfhub(model, paths["TF Hub module"], class_names=names)
    paths["TF Hub module"] /= "saved_model"
    paths |= export_onnx_files(model, calibration, folder)
    paths |= export_tflite_files(model, names, calibration, folder)
    return {name: opener(path, threads) for name, path in paths.items()}


def check_peers():
    """Raises `ImportError` unless all that `--peers` measures is installed."""
    packages = ("onnxruntime", "openvino", "torch", "timm")
    missing = [x for x in packages if not importlib.util.find_spec(x)]
    if missing:
        raise ImportError(
            "`--peers` measures other packages, too. Install them: "
            f"pip install {' '.join(missing)}"
        )


def export_peers(model, names, calibration, folder, threads):
    """Exports for the other CPU runtimes. Returns the same as `export_all`."""
    path = folder / "model.keras"
    model.save(path)
    exported = export_onnx_files(model, calibration, folder)
    exported |= export_tflite_files(
        model, names, calibration, folder, ("float32", "int8")
    )
    found = {
        f"Keras {name}": (path, functools.partial(keras_model, model, name))
        for name in ("predict", "predict_on_batch")
    }
    for name, file in exported.items():
        runtimes = {"LiteRT": None}
        if name.startswith("ONNX"):
            runtimes = {"onnxruntime": None, "OpenVINO": "openvino"}
        if name == "ONNX":
            runtimes["OpenVINO bfloat16"] = "openvino_bfloat16"
        for title, runtime in runtimes.items():
            found[f"{name}, {title}"] = opener(file, threads, runtime)
    compiled = functools.partial(torch_compiled, model, threads)
    return {**found, "PyTorch, torch.compile": (path, compiled)}


def opener(path, threads, runtime=None):
    """Pairs a path with the function that opens it."""
    return path, functools.partial(
        open_runtime, path, runtime=runtime, threads=threads
    )


def export_onnx_files(model, calibration, folder):
    """Exports ONNX files and returns a dictionary from names to paths."""
    paths = {"ONNX": folder / "model.onnx", "ONNX int8": folder / "int8.onnx"}
    say("Exporting ONNX")
    export_onnx(model, paths["ONNX"])
    export_onnx(
        model,
        paths["ONNX int8"],
        quantization="int8",
        calibration_images=calibration,
    )
    return paths


def export_tflite_files(
    model, names, calibration, folder, quantizations=QUANTIZATIONS
):
    """Exports TFLite files and returns a dictionary from names to paths."""
    paths = {}
    for quantization in quantizations:
        name = f"TFLite {quantization}"
        say(f"Exporting {name}")
        paths[name] = folder / f"{quantization}.tflite"
        export_tflite(
            model,
            paths[name],
            quantization=quantization,
            calibration_images=calibration if quantization == "int8" else None,
            class_names=names,
        )
    return paths


@contextlib.contextmanager
def keras_model(model, method):
    """Opens a model's `predict` or `predict_on_batch`."""

    def predict(images):
        if method == "predict_on_batch":
            return model.predict_on_batch(images)
        return model.predict(images, batch_size=len(images), verbose=0)

    yield in_process(f"keras {method}", model, predict)


@contextlib.contextmanager
def torch_compiled(model, threads):
    """Opens timm's ConvMixer with the same weights and `torch.compile`."""
    import torch

    torch.set_num_threads(threads)
    network = torch_network(model).eval()
    pixels = next(x for x in model.layers if type(x) is keras.layers.Rescaling)
    scale, offset = map(torch.tensor, (pixels.scale, pixels.offset))

    @torch.compile
    def forward(images):
        normalized = images * scale + offset
        return network(normalized.permute(0, 3, 1, 2)).softmax(1)

    def predict(images):
        with torch.inference_mode():
            return forward(torch.from_numpy(images)).numpy()

    yield in_process(
        f"torch.compile, torch {torch.__version__}", model, predict
    )


def torch_network(model):
    """Builds timm's ConvMixer with a model's weights."""
    import torch
    from timm.models.convmixer import ConvMixer

    stem = model.get_layer("patch_embed")
    blocks = [x for x in model.layers if x.name.startswith("block_")]
    activation = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}[
        keras.activations.serialize(stem.activation)
    ]
    network = ConvMixer(
        stem.dim,
        len(blocks),
        blocks[0].depthwise.kernel.shape[0],
        stem.patch_size,
        num_classes=model.output_shape[-1],
        act_layer=activation,
    )
    state = {k: torch.tensor(v) for k, v in timm_state_dict(model).items()}
    network.load_state_dict(state)
    return network


def in_process(name, model, predict):
    """Creates a `Runtime` from a function in this process."""

    def timed(images):
        start = time.process_time()
        outputs = predict(images)
        return outputs, time.process_time() - start

    inputs = [{"shape": list(model.input_shape)}]
    return Runtime(name, {"inputs": inputs}, 32, timed)


def measure(artifacts, samples, rounds, batch_size=1):
    """Compares artifacts with the first one and times them in turns.

    Args:
        artifacts: Artifacts from `export_all`. The first is the Keras model.
        samples: Images and labels from `export_flags.load_images`.
        rounds: Integer, the number of timed runs of each.
        batch_size: Integer, images in a timed run.

    Returns:
        List with a dictionary for each artifact.
    """
    images, labels = samples
    results, expected = [], None
    with contextlib.ExitStack() as stack:
        runtimes = {}
        for name, (path, open_artifact) in artifacts.items():
            say(f"{name} on {len(images)} images")
            runtimes[name] = stack.enter_context(open_artifact())
            outputs = predict(runtimes[name], images)
            expected = outputs if expected is None else expected
            found = compare_classifiers(outputs, expected, labels)
            results.append(
                {
                    "artifact": name,
                    "runtime": runtimes[name].name,
                    "bytes": size_of(path),
                    "top1": found["accuracy"] and found["accuracy"]["artifact"],
                    "agreement": found["agreement"],
                    "largest_difference": found["differences"]["probabilities"][
                        "max"
                    ],
                }
            )
        say("Timing in turns")
        batch = np.resize(images, (batch_size, *images.shape[1:]))
        seconds = take_turns(runtimes, batch, rounds)
    for result in results:
        wall, processor = zip(*seconds[result["artifact"]], strict=True)
        for key, values in (
            ("milliseconds", processor),
            ("wall_milliseconds", wall),
        ):
            result[key] = 1e3 * statistics.median(values) / batch_size
    return results


def take_turns(runtimes, images, rounds):
    """Times runtimes on a batch in turns, after one untimed run of each.

    Args:
        runtimes: Dictionary from names to `Runtime`s. A runtime with a smaller
            batch size is called for each part of the batch.
        images: Pixels, (batch, height, width, channels).
        rounds: Integer, how often each is timed.

    Returns:
        Dictionary from names to lists of pairs: wall-clock seconds, and
        processor seconds in the computing process.
    """
    seconds = {name: [] for name in runtimes}
    images = np.float32(images)
    for number in range(rounds + 1):
        for name, runtime in runtimes.items():
            size, processor = runtime.batch_size, 0
            start = time.perf_counter()
            for first in range(0, len(images), size):
                processor += runtime.run(images[first : first + size])[1]
            if number:
                wall = time.perf_counter() - start
                seconds[name].append((wall, processor))
    return seconds


def print_results(results):
    """Prints a line for each artifact."""
    rows = [
        (
            *("artifact", "kB", "top-1", "same class as Keras"),
            *("ms of the processor", "ms"),
        )
    ]
    for r in results:
        top1 = "-" if r["top1"] is None else f"{r['top1']:.2%}"
        rows.append(
            (
                r["artifact"],
                f"{r['bytes'] / 1e3:,.0f}",
                top1.replace("%", " %"),
                f"{r['agreement']:.2%}".replace("%", " %"),
                f"{r['milliseconds']:.2f}",
                f"{r['wall_milliseconds']:.2f}",
            )
        )
    export_flags.print_table(rows)


def main(argv):
    """Runs the benchmark."""
    export_flags.begin(argv)
    threads = flags.FLAGS.threads
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    with export_flags.errors_end_it():
        output = export_flags.OUTPUT.value
        check_destination(output, (".json",), export_flags.OVERWRITE.value)
        further = further_artifacts()
        if _PEERS.value:
            check_peers()
        model, names = export_flags.load_model()
        samples = export_flags.load_images(model, names)
        calibration = calibration_flags.load_images(model, samples)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            export = export_peers if _PEERS.value else export_all
            artifacts = export(model, names, calibration, folder, threads)
            for name, path in further.items():
                artifacts[name] = opener(path, threads)
            results = measure(
                artifacts, samples, _TURNS.value, _BATCH_SIZE.value
            )
        dump_json(
            output,
            {
                "machine": {**machine(), "tensorflow": tf.__version__},
                "clock": "milliseconds: processor time of an image, in the "
                "process that computes",
                "threads": threads,
                "batch_size": _BATCH_SIZE.value,
                "model": flags.FLAGS.model,
                "images": len(samples[0]),
                "calibration_images": len(calibration),
                "artifacts": results,
            },
        )
    print_results(results)


if __name__ == "__main__":
    app.run(main)
