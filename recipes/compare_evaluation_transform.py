"""Compares the evaluation transform with timm's own, on real images.

    python recipes/compare_evaluation_transform.py --data ~/imagenet \
        --split validation

Needs a folder `split/class/*.jpg`, PyTorch and timm. Prints and writes the mean
absolute difference in grey levels, for our transform and for
`tf.image.resize`, and, through ConvMixer-1024/20 with one set of random
weights, how many images get the same class from either.

Time: five minutes for 500 images. Result:
recipes/results/evaluation_transform.json.
"""

import json

import numpy as np
from absl import app
from absl import flags

from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced

_DATA = flags.DEFINE_string("data", None, "Folder of images.", required=True)
_SPLIT = flags.DEFINE_string("split", "validation", "Folder in it.")
_OUTPUT = flags.DEFINE_string(
    "output",
    "recipes/results/evaluation_transform.json",
    "JSON file to write.",
)

SIZE, FRACTION, BATCH = 224, 0.96, 20


def tensorflow_transform(encoded):
    """The transform with TensorFlow's own decoder and bicubic filter."""
    import tensorflow as tf

    image = tf.io.decode_jpeg(encoded, channels=3)
    shorter = int(SIZE / FRACTION)
    sides = tf.shape(image)[:2]
    full = shorter * sides // tf.reduce_min(sides)
    image = tf.image.resize(image, full, "bicubic", antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, SIZE, SIZE)
    return tf.round(tf.clip_by_value(image, 0.0, 255.0))


def batches():
    """Yields batches of timm's pixels, ours and TensorFlow's."""
    import tensorflow as tf
    from PIL import Image
    from timm.data import create_transform

    from convmixer_tf.data import evaluation_batches
    from convmixer_tf.data import open_dataset

    dataset = open_dataset(_DATA.value, _SPLIT.value)
    peer = create_transform(
        SIZE,
        interpolation="bicubic",
        crop_pct=FRACTION,
        use_prefetcher=True,  # Pixels, not yet normalised.
    )
    paths = iter(dataset.names.numpy())
    for images, _, weights in evaluation_batches(
        dataset, SIZE, BATCH, crop_fraction=FRACTION
    ):
        chosen = [next(paths).decode() for _ in range(int(sum(weights)))]
        theirs = [
            np.transpose(peer(Image.open(path).convert("RGB")), (1, 2, 0))
            for path in chosen
        ]
        plain = [tensorflow_transform(tf.io.read_file(p)) for p in chosen]
        yield np.float32(theirs), images[: len(chosen)].numpy(), np.array(plain)


def random_model():
    """ConvMixer-1024/20 whose random weights tell images apart."""
    import keras

    from convmixer_tf import ConvMixer1024_20

    keras.utils.set_random_seed(0)
    model = ConvMixer1024_20(weights=None, classifier_activation=None)
    random = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[1]
        if name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "moving_mean"):
            weight.assign(random.normal(0, 0.1, weight.shape))
    return model


def main(argv):
    """Compares and writes the figures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    model = random_model()
    figures = {"ours": [], "tf.image.resize": []}
    classes = set()
    for theirs, *others in batches():
        expected = model.predict_on_batch(theirs).argmax(1)
        classes |= set(expected.tolist())
        for name, pixels in zip(figures, others, strict=True):
            error = np.abs(pixels - theirs)
            actual = model.predict_on_batch(pixels).argmax(1)
            figures[name] += zip(
                error.mean((1, 2, 3)),
                error.max((1, 2, 3)),
                actual == expected,
                strict=True,
            )
    report = {"images": len(figures["ours"]), "classes_given": len(classes)}
    for name, rows in figures.items():
        mean, most, same = np.array(rows, "float64").T
        report[name] = {
            "mean_absolute_difference": mean.mean(),
            "identical_images": float((most == 0).mean()),
            "largest_difference": most.max(),
            "top1_agreement": same.mean(),
        }
    with replaced(_OUTPUT.value) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=2)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    app.run(main)
