"""Compiles ConvMixers for an H200 without one, and counts what they move.

    pip install "jax[cuda13]"
    python recipes/compile_for_gpu.py

XLA compiles for a GPU that is only described to it, so that this runs on any
Linux machine: whether everything compiles, our Pallas kernels too, how many
kernels a block takes, how often they read or write a map of all images, and
how much memory a block keeps. What it can't tell is how fast any of it is: no
algorithm is chosen by measuring, and nothing runs.

A block's share is the difference between networks of four blocks and of two.
Bytes are those of each kernel's inputs and outputs, as if no cache kept them
and nothing of an input were left out: in training, two of the maps are those of
which the batch norms take the first row, to shift the variance.

Time: three minutes. Result: results/compiled_for_gpu.json and a table; see
"Compiled for a GPU" in BUILD.md.
"""

import importlib.util
import itertools
import os

from absl import app
from absl import flags

MODELS = ("1536_20", "768_32", "1024_20", "256_8")
STEPS = ("infer", "train")
KERAS = "keras"
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    # Autotuning would ask a GPU.
    "XLA_FLAGS": "--xla_gpu_autotune_level=0 "
    "--xla_gpu_enable_triton_gemm=false",
}

_MODEL = flags.DEFINE_multi_enum(
    "model", MODELS, [*MODELS, "16_2"], "What to compile; repeatable."
)
_STEP = flags.DEFINE_multi_enum("step", STEPS, STEPS, "Repeatable.")
_FORM = flags.DEFINE_multi_string(
    "form",
    [KERAS, "native", "pallas", "pallas_toeplitz"],
    f"Words for `set_depthwise`, separated by commas, or {KERAS}, none of "
    "whose operations are ours; repeatable.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images a step.", 1)
_OUTPUT = flags.DEFINE_string(
    "output", "recipes/results/compiled_for_gpu.json", "JSON file to write."
)


def table(results):
    """Lays the results out in Markdown; returns a list of lines."""
    lines = [
        "| model | step | form | kernels a block | maps read or written "
        "| at 4.3 TB/s, ms | maps kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines.append(
            "| {model} | {step} | {form} | {kernels_a_block:.0f} "
            "| {maps_a_block:.1f} | {milliseconds_at_copy_rate:.2f} "
            "| {kept_maps_a_block:.1f} |".format(**result)
        )
    return lines


def main(argv):
    """Compiles what the flags ask for, and writes what it found."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise app.UsageError('This needs `pip install "jax[cuda13]"`.')
    os.environ.update(ENVIRONMENT)
    import gpu_program
    from speed.device import machine

    from convmixer_tf.files import check_destination
    from convmixer_tf.files import dump_json

    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    mesh = gpu_program.described_mesh()
    report = {"machine": machine(), **gpu_program.versions()}
    report["results"] = []
    for case in itertools.product(_MODEL.value, _STEP.value, _FORM.value):
        found = gpu_program.measure(*case, _BATCH_SIZE.value, mesh)
        report["results"].append(found)
        print(table([found])[-1], flush=True)
    dump_json(_OUTPUT.value, report)
    print("\n".join(table(report["results"])))


if __name__ == "__main__":
    app.run(main)
