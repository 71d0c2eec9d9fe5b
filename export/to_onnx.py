"""Exports a ConvMixer as an ONNX file and verifies it in onnxruntime.

    python export/to_onnx.py --model runs/mine/model.keras \
        --output runs/mine/model.onnx --images FOLDER

`--images` are real images for the comparison: a folder `split/class/*.jpg`, a
name in tensorflow-datasets, or a folder of images. The file appears, with a
report beside it, only if its outputs match the model's.

Time: seconds, plus a forward pass of each over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import to_onnx

flags.adopt_module_key_flags(to_onnx)

if __name__ == "__main__":
    app.run(to_onnx.main)
