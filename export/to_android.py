"""Fills the Android app in `export/android` with a TFLite file.

    python export/to_android.py --model model.tflite --image photo.jpg

`--model` is a file of `to_tflite.py`, with labels; `--image` one of which it
is sure, for the app's self-test. What LiteRT finds in it here is what the
phone has to find. `export/android/README.md` says how to build the app.

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
