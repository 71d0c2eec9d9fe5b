"""Measures what gradient checkpointing saves and costs.

    python recipes/measure_remat.py

One training step of ConvMixer-1024/20 at 224 pixels, batch 8, with and without
`remat=True`, each in a process of its own: the peak of its memory above what
it had before the step, the seconds of its second step, and the gradients.

Time and result: about a minute; see BUILD.md.
"""

import json
import multiprocessing
import resource
import time

import numpy as np
from absl import app
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/remat.json", "JSON file to write."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 8, "Images in the batch.", lower_bound=1
)


def peak_memory():
    """The most memory this process has had at once, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(remat, batch_size):
    """Trains for two steps.

    Args:
        remat: Boolean, whether to recompute activations.
        batch_size: Integer, images in the batch.

    Returns:
        A dictionary of figures, and the gradients of the first step.
    """
    import keras
    import tensorflow as tf

    from convmixer_tf import ConvMixer1024_20

    keras.utils.set_random_seed(0)
    model = ConvMixer1024_20(
        weights=None, remat=remat, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch_size, 224, 224, 3)).astype("float32")
    labels = rng.integers(0, 1000, batch_size)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        return tape.gradient(loss, model.trainable_variables)

    before = peak_memory()
    gradients = [gradient.numpy() for gradient in step()]
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    figures = {"step_mib": peak_memory() - before, "step_seconds": seconds}
    return figures, gradients


def main(argv):
    """Measures both and writes the comparison."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    processes = multiprocessing.get_context("spawn")
    results = {}
    for remat in (False, True):
        with processes.Pool(1) as pool:
            results[remat] = pool.apply(measure, (remat, _BATCH_SIZE.value))
    (plain, expected), (remat, actual) = results[False], results[True]
    report = {
        "model": "ConvMixer1024_20",
        "batch_size": _BATCH_SIZE.value,
        "plain": plain,
        "remat": remat,
        "memory_ratio": remat["step_mib"] / plain["step_mib"],
        "time_ratio": remat["step_seconds"] / plain["step_seconds"],
        "largest_relative_gradient_difference": max(
            float(np.abs(a - e).max() / np.abs(e).max())
            for a, e in zip(actual, expected, strict=True)
            if np.abs(e).max() > 1e-6  # A bias before batch norm has none.
        ),
    }
    with replaced(_OUTPUT.value) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=2)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    app.run(main)
