"""Runs a SavedModel in a process that cannot import this package.

    python -I saved_model_worker.py FOLDER SIGNATURE THREADS

It reads pickled batches of pixels from stdin and writes pickled pairs to
stdout: an answer and `None`, or `None` and an error message. The first answer
describes the signature. Each other answer has a batch's outputs and the
processor time, in seconds.
"""

import os
import pickle
import sys
import time

import tensorflow as tf

_OUTPUTS = ("predictions", "probabilities", "logits", "features", "output_0")


def hide_our_package():
    """Makes importing this package an error, as if it were not installed."""
    sys.modules["convmixer_tf"] = None


def load(folder, name):
    """Loads a signature that takes a batch of images.

    Args:
        folder: Path of the SavedModel.
        name: Name of the signature.

    Returns:
        The loaded object, which must be kept alive; the signature; the name and
        the spec of its input; and the name of the output to read.
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
    """Returns (name, shape, dtype) of input and output, and the operators."""
    graph = signature.graph.as_graph_def()
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    tensors = [
        (name, tensor.shape.as_list(), tensor.dtype.name)
        for name, tensor in (
            (argument, spec),
            (output, signature.structured_outputs[output]),
        )
    ]
    return *tensors, [node.op for node in nodes]


def main(folder, name, threads):
    """Answers requests until the end of stdin."""
    hide_our_package()
    # TensorFlow's output must not mix with the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(value, error=None):
        pickle.dump((value, error), answers)
        answers.flush()

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
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
