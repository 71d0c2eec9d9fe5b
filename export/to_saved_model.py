"""Exports a model as a SavedModel, for example for TensorFlow Serving.

    python export/to_saved_model.py --model runs/mine/model.keras \
        --output runs/mine/saved_model --images FOLDER

It has signatures for float pixels, uint8 pixels and encoded JPEG or PNG files;
see `convmixer_tf.export.export_saved_model`. `--images` are real images for the
comparison: a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a
folder of images. The SavedModel appears, with a report beside it, only if its
outputs match the model's in a process without this package.

Time: seconds, plus a forward pass of each over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import to_saved_model

flags.adopt_module_key_flags(to_saved_model)

if __name__ == "__main__":
    app.run(to_saved_model.main)
