"""Flags for the calibration images of int8 files."""

from absl import flags

from convmixer_tf import data
from convmixer_tf.cli import export_flags
from convmixer_tf.export.tflite import check_calibration

_CALIBRATION = flags.DEFINE_string(
    "calibration", None, "Real images for int8, different from --images."
)
_SPLIT = flags.DEFINE_string(
    "calibration_split", "train", "Split of these images."
)
_LIMIT = flags.DEFINE_integer(
    "calibration_limit", 300, "Maximum number of these images.", 1
)


def load_images(model, samples=None):
    """Reads the images in the flags, in the model's input size.

    Args:
        model: A `keras.Model`.
        samples: Images for the comparison, from `export_flags.load_images`, or
            `None`.

    Returns:
        uint8 array of pixels.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If `--calibration` is missing, if there are too few images,
            or if an image is also used for the comparison.
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
                "also in --images, so the comparison would be biased."
            )
    return images
