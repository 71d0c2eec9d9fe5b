"""Flags for the images that int8 files take their ranges from."""

from absl import flags

from convmixer_tf import data
from convmixer_tf.cli import export_flags
from convmixer_tf.export.tflite import check_calibration

_CALIBRATION = flags.DEFINE_string(
    "calibration", None, "Real images for int8, not those of --images."
)
_SPLIT = flags.DEFINE_string(
    "calibration_split", "train", "Which part of them."
)
_LIMIT = flags.DEFINE_integer(
    "calibration_limit", 300, "The most of them to take.", 1
)


def load_images(model, samples=None):
    """Reads the images that the flags name, as the model takes them.

    Args:
        model: A `keras.Model`.
        samples: What `export_flags.load_images` returns, the images to
            compare on, or `None`.

    Returns:
        uint8 array of pixels.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If there is no `--calibration`, if there are too few, or
            if an image is among those to compare on.
    """
    if not _CALIBRATION.value:
        raise ValueError("int8 needs --calibration, a folder of real images.")
    images, _ = data.read_images(
        export_flags.open_images(_CALIBRATION.value, _SPLIT.value),
        export_flags.image_size(model, "another --quantization"),
        _LIMIT.value,
        crop_fraction=export_flags.crop_fraction(),
        orientation=export_flags.ORIENTATION.value,
    )
    check_calibration(images, images.shape[1:])
    if samples:
        known = {image.tobytes() for image in samples[0]}
        shared = sum(image.tobytes() in known for image in images)
        if shared:
            raise ValueError(
                f"{shared} of the {len(images)} images of --calibration are "
                "among --images: the comparison would flatter the file."
            )
    return images
