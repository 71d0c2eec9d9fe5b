"""Serves a classifier over HTTP: an image in, JSON out.

    python export/serve/server.py --model runs/mine/saved_model --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict

`--model` is the folder of a SavedModel, of a TF Hub module or of a run, a
`.keras` or `.tflite` file, or a variant with its weights. README.md in this
folder has the limits and what a client sees beyond them.

Starts in seconds; then it runs until SIGTERM or Ctrl-C, and ends when what it
has begun is answered.
"""

from absl import app
from absl import flags

from convmixer_tf.cli import serve

flags.adopt_module_key_flags(serve)

if __name__ == "__main__":
    app.run(serve.main)
