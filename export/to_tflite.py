"""Exports a ConvMixer as TFLite files and verifies them in LiteRT.

    python export/to_tflite.py --model runs/mine/model.keras \
        --output runs/mine --images FOLDER --calibration FOLDER \
        --quantization float16 --quantization dynamic --quantization int8

`--images` are real images for the comparison, `--calibration` other images for
int8. Each is a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a
folder of images. A file for each number format appears in `--output`, named
after the model and the format, with a report beside it, if its outputs match
the model's.

Time: for each format the conversion (seconds; minutes for the large variants)
and a forward pass over the images. Results: `results/tflite_cifar10_*.json`.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import to_tflite

flags.adopt_module_key_flags(to_tflite)

if __name__ == "__main__":
    app.run(to_tflite.main)
