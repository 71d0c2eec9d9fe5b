"""Exports a ConvMixer for the web page and verifies it in LiteRT.

    python export/to_web.py --model runs/mine/model.keras \
        --output export/web/dist/model --images FOLDER --quantization dynamic

`--images` are real images for the comparison: a folder `split/class/*.jpg`, a
name in tensorflow-datasets, or a folder of images. `--calibration` are other
images for int8. A folder with `model.tflite` and `model.json` appears if the
outputs match the model's. See `export/web/README.md` for how to build the page.
The report and the card are written beside the folder. If it is in `public` or
`dist`, which are published, they are written beside these.

Time: the conversion (seconds; minutes for the large variants) and a forward
pass over the images.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import to_web

flags.adopt_module_key_flags(to_web)

if __name__ == "__main__":
    app.run(to_web.main)
