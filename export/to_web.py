"""Exports a ConvMixer for the web page, compared in LiteRT.

    python export/to_web.py --model runs/mine/model.keras \
        --output export/web/dist/model --images FOLDER --quantization dynamic

`--images` are real ones to compare on: a folder `split/class/*.jpg`, a name
in tensorflow-datasets, or a folder of images; `--calibration` are others, for
int8. A folder of `model.tflite` and `model.json` appears if the file does what
the model does. `export/web/README.md` says how to build the page. The report
and the card lie beside the folder, or beside `public` or `dist` if it is in one
of these, which are published.

Time: the conversion (seconds; minutes for the large variants) and a forward
pass over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import to_web

flags.adopt_module_key_flags(to_web)

if __name__ == "__main__":
    app.run(to_web.main)
