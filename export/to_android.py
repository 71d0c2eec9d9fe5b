"""Writes a TFLite file and its metadata to the Android app.

    python export/to_android.py --model model.tflite --image photo.jpg

`--model` is a file from `to_tflite.py` with class names. `--image` is an image
that the model classifies confidently, for the app's self-test: the phone must
get the same result as LiteRT here. See `export/android/README.md` for how to
build the app.

Time: seconds. Result: the folder `export/android/app/src/main/assets`.
"""

import pathlib

from absl import app
from absl import flags

from convmixer_tf.cli import to_android

flags.adopt_module_key_flags(to_android)

ASSETS = pathlib.Path(__file__).parent / "android/app/src/main/assets"

flags.FLAGS.set_default("output", str(ASSETS))

if __name__ == "__main__":
    app.run(to_android.main)
