"""Fine-tunes with tensorflow-model-optimization, in a process of its own.

    python -m convmixer_tf.export.qat.worker FOLDER

Reads and writes what `exchange` lists. tensorflow-model-optimization computes
with the package `tf_keras`, Keras 2, and sets an environment variable that
makes TensorFlow take it for its Keras. Keras 3 is imported as well, with this
package, and not used. If the inputs are wrong, what is wrong is the output,
and the exit status `EXPECTED_ERROR`.
"""

import fcntl
import os
import sys

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from convmixer_tf.export.qat import exchange
from convmixer_tf.export.qat import methods
from convmixer_tf.export.qat.config import TuningConfig
from convmixer_tf.export.qat.loop import count_steps
from convmixer_tf.export.qat.loop import train
from convmixer_tf.export.qat.twin import build_twin
from convmixer_tf.export.qat.twin import check_parity

# How many of the calibration images the twin's outputs are kept of.
_PROBES = 256


def choose_method(config, scheme, nodes, twin, inputs):
    """Makes what the settings name.

    Args:
        config: A `TuningConfig`.
        scheme: The number format of the file.
        nodes: What `graph.describe` returns.
        twin: A `Twin` without wrappers.
        inputs: Dictionary of arrays, those of `inputs.npz`.

    Returns:
        One of the classes of `methods`.
    """
    if config.method == "quantize":
        ranges = None
        if scheme == "int8":
            ranges = methods.measure_ranges(twin, inputs["calibration"])
        return methods.Quantize(nodes, scheme, ranges)
    if config.method == "prune":
        steps = config.epochs * count_steps(len(inputs["images"]), config)
        return methods.Prune(config.sparsity, steps)
    if config.method == "cluster":
        return methods.Cluster(config.clusters)
    return methods.Float()


def run(folder):
    """Does what the folder says, and leaves the result there."""
    settings = exchange.read_json(folder, exchange.SETTINGS)
    config = TuningConfig(**settings["config"])
    tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    tf.config.threading.set_inter_op_parallelism_threads(config.threads)
    tf_keras.utils.set_random_seed(config.seed)
    nodes = exchange.read_json(folder, exchange.GRAPH)
    weights = exchange.unflatten(exchange.read_arrays(folder, exchange.WEIGHTS))
    inputs = exchange.read_arrays(folder, exchange.INPUTS)
    twin = build_twin(nodes, weights)
    expected = inputs["expected"]
    parity = check_parity(twin, inputs["images"][: len(expected)], expected)
    logging.info("The twin is %.1e off, relative to the largest output", parity)
    method = choose_method(
        config, settings["quantization"], nodes, twin, inputs
    )
    twin = build_twin(nodes, weights, method.wrap)
    method.prepare(twin)
    before = _predict(twin, inputs["calibration"][:_PROBES])
    found = train(
        twin, method, inputs["images"], inputs["labels"], config, folder
    )
    tuned = exchange.flatten(method.weights())
    after = _predict(twin, inputs["calibration"][:_PROBES])
    arrays = {"weights": tuned, "outputs": {"before": before, "after": after}}
    exchange.write_arrays(
        folder,
        exchange.TUNED,
        {f"{k}:{n}": a for k, v in arrays.items() for n, a in v.items()},
    )
    exchange.write_json(folder, exchange.RESULT, {"parity": parity, **found})


def _predict(twin, images):
    """Gives the logits of the twin, rounded if it rounds."""
    if not len(images):
        return np.zeros(0, np.float32)
    return np.asarray(twin.model(np.float32(images), training=False))


def main(folder):
    """Runs alone in its folder; tells expected errors by the exit status."""
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    # At each checkpoint TensorFlow says how long it took to name its one part.
    logging.get_absl_logger().addFilter(
        lambda record: record.filename != "functional_saver.py"
    )
    with open(os.path.join(folder, "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run(folder)
        except BlockingIOError:
            print(f"Another process is at work in `{folder}`.")
            sys.exit(exchange.EXPECTED_ERROR)
        except ValueError as error:
            logging.debug("From here:", exc_info=True)
            print(error)
            sys.exit(exchange.EXPECTED_ERROR)


if __name__ == "__main__":
    main(*sys.argv[1:])
