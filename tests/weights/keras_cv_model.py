"""Writes keras-cv's ConvMixer with random weights, and its outputs.

    TF_USE_LEGACY_KERAS=1 python tests/weights/keras_cv_model.py FOLDER \
        DIM DEPTH KERNEL_SIZE PATCH_SIZE CLASSES HEIGHT WIDTH

needs `pip install -e ".[keras-cv]"`, and writes `top.h5`, `no_top.h5` and
`outputs.npz` into the folder. Those in `tests/fixtures/keras_cv` are of
`4 2 8 7 5 52 38`, compressed afterwards by `gzip -9n`.
"""

import pathlib
import sys

import numpy as np
import tf_keras
from keras_cv.src.models.legacy.convmixer import ConvMixer


def main(folder, *numbers):
    """Writes the files."""
    dim, depth, kernel_size, patch_size, classes, *size = map(int, numbers)
    folder = pathlib.Path(folder)
    rng = np.random.default_rng(0)

    def build(include_top):
        return ConvMixer(
            dim,
            depth,
            patch_size,
            kernel_size,
            include_top=include_top,
            include_rescaling=True,
            num_classes=classes if include_top else None,
            classifier_activation=None,
        )

    build(include_top=True)  # So that the layers' names do not start at 0.
    model = build(include_top=True)
    for weight in model.weights:
        weight.assign(random(weight, rng))
    model.save_weights(folder / "top.h5")
    body = build(include_top=False)
    body.set_weights(model.get_weights()[:-2])
    body.save_weights(folder / "no_top.h5")

    images = rng.integers(0, 256, (2, *size, 3)).astype("uint8")
    pixels = images.astype("float32")
    np.savez_compressed(
        folder / "outputs.npz",
        images=images,
        logits=model.predict(pixels, verbose=0),
        features=body.predict(pixels, verbose=0),
    )


def random(weight, rng):
    """Draws values that keep the magnitude of activations.

    Some variances are as small as the epsilons, so that these matter.
    """
    kind = weight.name.rpartition("/")[2].partition(":")[0]
    shape = weight.shape
    if kind == "moving_variance":
        return 10.0 ** rng.uniform(-3, 0, shape)
    if kind == "gamma":
        return rng.uniform(0.1, 0.3, shape) * rng.choice([-1, 1, 1], shape)
    if kind == "kernel":
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    if kind == "depthwise_kernel":
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[:2]))
    return rng.normal(0, 0.2, shape)


if __name__ == "__main__":
    assert tf_keras.__version__.startswith("2.")
    main(*sys.argv[1:])
