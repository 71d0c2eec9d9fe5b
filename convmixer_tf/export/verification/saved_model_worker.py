"""Runs a SavedModel in a process that knows nothing of how it was made.

    python -I saved_model_worker.py FOLDER SIGNATURE THREADS

Reads pickled batches of pixels from its standard input, and writes pairs to
its standard output: an answer and `None`, or `None` and what went wrong. The
first answer describes the signature; the others are of a batch: its outputs
and the seconds of processor time.
"""

import collections
import os
import pickle
import sys
import time

import tensorflow as tf

_OUTPUTS = ("predictions", "probabilities", "logits", "features", "output_0")


def hide_our_package():
    """Makes importing it an error, as if it were not installed."""
    sys.modules["convmixer_tf"] = None


def load(folder, name):
    """Loads a signature that takes a batch of images.

    Args:
        folder: Path of the SavedModel.
        name: Name of the signature.

    Returns:
        The loaded object, which must be kept; the signature; the name and the
        spec of its input; and the name of the output to read.
    """
    loaded = tf.saved_model.load(folder)
    if name not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise ValueError(f"it has no signature {name!r}, but {known}.")
    signature = loaded.signatures[name]
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise ValueError(f"signature {name!r} takes {sorted(inputs)}.")
    ((argument, spec),) = inputs.items()
    if spec.dtype == tf.string or spec.shape.rank != 4:
        raise ValueError(f"signature {name!r} takes no pixels, but {spec}.")
    outputs = signature.structured_outputs
    output = next((key for key in _OUTPUTS if key in outputs), None)
    if output is None and len(outputs) == 1:
        (output,) = outputs
    if output is None:
        raise ValueError(f"no output of {sorted(outputs)} is known.")
    return loaded, signature, argument, spec, output


def describe(signature, argument, spec, output):
    """Describes a signature, as `describe_tflite` does a file."""
    graph = signature.graph.as_graph_def()
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    operators = collections.Counter(node.op for node in nodes)
    result = signature.structured_outputs[output]
    return {
        "scheme": "float32",
        "inputs": [_tensor(argument, spec)],
        "outputs": [_tensor(output, result)],
        "operators": dict(operators.most_common()),
        "custom_operators": [],
        "delegation": None,
    }


def _tensor(name, spec):
    return {
        "name": name,
        "shape": spec.shape.as_list(),
        "dtype": spec.dtype.name,
        "scale": None,
        "zero_point": None,
    }


def main(folder, name, threads):
    """Answers until there is nothing more to read."""
    hide_our_package()
    # What TensorFlow prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(value, error=None):
        pickle.dump((value, error), answers)
        answers.flush()

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        kept, signature, argument, spec, output = load(folder, name)
        answer(describe(signature, argument, spec, output))
        while True:
            pixels = tf.cast(pickle.load(sys.stdin.buffer), spec.dtype)
            start = time.process_time()
            outputs = signature(**{argument: pixels})[output].numpy()
            answer((outputs, time.process_time() - start))
    except EOFError:
        del kept
    except Exception as error:
        answer(None, str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
