"""Serves a classifier over HTTP: an image in, JSON out.

    python export/serve/server.py --model runs/mine/saved_model --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict

`--model` is a SavedModel, TF Hub module or run folder, a `.keras` or `.tflite`
file, or a variant with published weights. README.md in this folder describes
the limits and the responses beyond them.

It starts in seconds and runs until SIGTERM or Ctrl-C. It exits after all
pending requests are answered.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import serve

flags.adopt_module_key_flags(serve)

if __name__ == "__main__":
    app.run(serve.main)
