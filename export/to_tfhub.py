"""Exports a model as a TF Hub module that can be fine-tuned.

    python export/to_tfhub.py --model runs/mine/model.keras \
        --output runs/mine/module --images FOLDER --kind feature_vector

It writes a folder with `saved_model/`, `model.tar.gz` and `README.md`; see
`convmixer_tf.export.export_tfhub`. `--images` are real images for the
comparison: a folder `split/class/*.jpg`, a name in tensorflow-datasets, or a
folder of images. The module appears, with a report beside it, only if its
outputs match the model's in a process without this package.

Time: seconds, plus a forward pass of each over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import to_tfhub

flags.adopt_module_key_flags(to_tfhub)

if __name__ == "__main__":
    app.run(to_tfhub.main)
