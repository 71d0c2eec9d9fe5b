"""Trains with tensorflow-model-optimization in a separate process.

    python -m convmixer_tf.export.qat.worker FOLDER

It reads and writes the files that `exchange` lists.
tensorflow-model-optimization uses Keras 2 (the package `tf_keras`) and needs an
environment variable that makes TensorFlow use it, too. This package imports
Keras 3 into the process, but Keras 3 is not used. If there is a `ValueError`,
its message is printed and the exit status is `EXPECTED_ERROR`.
"""

import fcntl
import os
import sys

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from convmixer_tf.export.qat import exchange
from convmixer_tf.export.qat.config import TuningConfig
from convmixer_tf.export.qat.legacy_model import build_legacy_model
from convmixer_tf.export.qat.legacy_model import check_outputs
from convmixer_tf.export.qat.rounding import Rounding
from convmixer_tf.export.qat.rounding import measure_ranges
from convmixer_tf.export.qat.training import train
from convmixer_tf.files import dump_json

# Number of calibration images whose outputs are kept.
_KEPT_OUTPUTS = 256


def run(folder):
    """Trains with the settings in a folder and writes the result there."""
    settings = exchange.read_json(folder, exchange.SETTINGS)
    config = TuningConfig(**settings["config"])
    tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    tf.config.threading.set_inter_op_parallelism_threads(config.threads)
    tf_keras.utils.set_random_seed(config.seed)
    nodes = exchange.read_json(folder, exchange.GRAPH)
    weights = exchange.unflatten(exchange.read_arrays(folder, exchange.WEIGHTS))
    inputs = exchange.read_arrays(folder, exchange.INPUTS)
    images, labels = inputs["images"], inputs["labels"]
    calibration, expected = inputs["calibration"], inputs["expected"]
    legacy = build_legacy_model(nodes, weights)
    difference = check_outputs(legacy, images[: len(expected)], expected)
    logging.info(
        "The Keras 2 model differs by %.1e, relative to the largest output.",
        difference,
    )
    if config.method == "quantize":
        rounding = Rounding(nodes, settings["quantization"])
        plain, legacy = (
            legacy,
            build_legacy_model(nodes, weights, rounding.wrap),
        )
        if settings["quantization"] == "int8":
            rounding.set_ranges(measure_ranges(plain.model, calibration))
    before = _predict(legacy.model, calibration[:_KEPT_OUTPUTS])
    found = train(legacy.model, images, labels, config, folder)
    after = _predict(legacy.model, calibration[:_KEPT_OUTPUTS])
    weights = exchange.flatten(legacy.weights())
    exchange.write_arrays(
        folder,
        exchange.TUNED,
        {
            **{f"weights:{name}": array for name, array in weights.items()},
            "outputs:before": before,
            "outputs:after": after,
        },
    )
    dump_json(
        os.path.join(folder, exchange.RESULT), {"parity": difference, **found}
    )


def _predict(model, images):
    if not len(images):
        return np.zeros(0, np.float32)
    return np.asarray(model(np.float32(images), training=False))


def main(folder):
    """Calls `run` unless another process uses the folder."""
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    # Suppress TensorFlow's log line at each checkpoint.
    logging.get_absl_logger().addFilter(
        lambda record: record.filename != "functional_saver.py"
    )
    with open(os.path.join(folder, "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run(folder)
        except BlockingIOError:
            print(f"Another process uses `{folder}`.")
            sys.exit(exchange.EXPECTED_ERROR)
        except ValueError as error:
            logging.debug("Traceback:", exc_info=True)
            print(error)
            sys.exit(exchange.EXPECTED_ERROR)


if __name__ == "__main__":
    main(*sys.argv[1:])
