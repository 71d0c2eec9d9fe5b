"""Compares the evaluation transform with timm's own, on real images.

    python recipes/compare_evaluation_transform.py --data ~/imagenet \
        --split validation

Needs a folder `split/class/*.jpg`, PyTorch and timm. Prints and writes the mean
absolute difference in grey levels, of our transform and of `tf.image.resize`,
and how many images get the same class from ConvMixer-1024/20, with one set of
random weights, after our transform and after timm's.

Time: seven minutes for 500 images beside other jobs. Result:
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
    """The same transform with TensorFlow's bicubic filter."""
    import tensorflow as tf

    from convmixer_tf.data import decode_image

    image = decode_image(encoded)
    sides = np.array(image.shape[:2])
    full = int(SIZE / FRACTION) * sides // sides.min()
    image = tf.image.resize(image, full, "bicubic", antialias=True)
    top, left = np.round((full - SIZE) / 2).astype(int)
    image = image[top : top + SIZE, left : left + SIZE]
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
            peer(Image.open(path).convert("RGB")).numpy().transpose(1, 2, 0)
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
        shape, kind = weight.shape, weight.path.rsplit("/", 1)[1]
        if kind in ("gamma", "moving_variance"):
            value = random.uniform(0.5, 1.5, shape)
        elif kind == "kernel":
            # At this scale signals neither die nor explode.
            depthwise = shape[-1] == 1
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            value = random.normal(0, fan_in**-0.5, shape)
        else:
            value = random.normal(0, 0.2, shape)
        weight.assign(value)
    return model


def main(argv):
    """Compares and writes the figures."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    check_destination(_OUTPUT.value, (".json",), overwrite=True)
    model = random_model()
    errors = {"ours": [], "tf.image.resize": []}
    logits = {"timm": [], "ours": []}
    for theirs, ours, plain in batches():
        logits["timm"] += list(model.predict_on_batch(theirs))
        logits["ours"] += list(model.predict_on_batch(ours))
        for name, pixels in (("ours", ours), ("tf.image.resize", plain)):
            error = np.abs(pixels - theirs)
            errors[name] += zip(
                error.mean((1, 2, 3)), error.max((1, 2, 3)), strict=True
            )
    # Random weights prefer one class for all images. A bias takes that away.
    bias = np.mean(logits["timm"], axis=0)
    classes = {n: (np.array(x) - bias).argmax(1) for n, x in logits.items()}
    report = {
        "images": len(logits["timm"]),
        "classes_given": len(set(classes["timm"].tolist())),
    }
    for name, rows in errors.items():
        mean, most = np.array(rows, "float64").T
        report[name] = {
            "mean_absolute_difference": mean.mean(),
            "mean_absolute_difference_of_the_worst_image": mean.max(),
            "largest_difference": most.max(),
        }
    same = classes["ours"] == classes["timm"]
    report["ours"]["top1_agreement"] = float(same.mean())
    with replaced(_OUTPUT.value) as unfinished, open(unfinished, "w") as file:
        json.dump(report, file, indent=2)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    app.run(main)
