"""Uploads a model to the Hugging Face hub, for Keras, timm and this package.

    convmixer push --model runs/mine --repository USER/REPOSITORY

The repository gets `model.keras`, `model.safetensors` and `config.json` in
timm's layout, and a model card. `open_model("hf://USER/REPOSITORY")` opens it.
First log in with `hf auth login`, or set HF_TOKEN.

Time: seconds, plus the upload.
"""

from absl import flags

from convmixer_tf.cli import export_flags
from convmixer_tf.export import push_to_hub

flags.adopt_module_key_flags(export_flags)
_REPOSITORY = flags.DEFINE_string(
    "repository", None, "USER/REPOSITORY. It is created if it doesn't exist."
)
_PRIVATE = flags.DEFINE_bool("private", False, "Create it as private.")
flags.mark_flags_as_required(["model", "repository"])


def main(argv):
    """Uploads the model."""
    export_flags.begin(argv)
    with export_flags.errors_end_it():
        model, names = export_flags.load_model()
        card = export_flags.card()
        commit = push_to_hub(
            model,
            _REPOSITORY.value,
            private=_PRIVATE.value,
            class_names=names,
            **card,
        )
    print(f"hf://{_REPOSITORY.value}@{commit}")
