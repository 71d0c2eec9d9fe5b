"""Hugging Face repositories for Keras, timm and this package.

| file | for |
|---|---|
| `model.keras` | Keras and `open_model`: the model with its class names |
| `model.safetensors`, `config.json` | timm |
| `README.md` | readers: the model card |
"""

import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras

from convmixer_tf.export.cards import artifact_card
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.files import PathLike
from convmixer_tf.files import write_text
from convmixer_tf.models import save_model
from convmixer_tf.models.contract import activation_name
from convmixer_tf.models.rebuilding import arguments_of
from convmixer_tf.models.structure import check_pixels
from convmixer_tf.preprocessing.imagenet import CROP_FRACTION
from convmixer_tf.weights import PUBLISHED_WEIGHTS
from convmixer_tf.weights import save_timm_weights
from convmixer_tf.weights.hub import CONFIG_FILE
from convmixer_tf.weights.hub import MODEL_FILE
from convmixer_tf.weights.hub import WEIGHTS_FILE
from convmixer_tf.weights.hub import hub_error

_USE = """
## Use

```python
import convmixer_tf

opened = convmixer_tf.open_model("hf://{repository}")
opened.model.predict(images), opened.class_names
```

`{model_file}` is a Keras model. `{weights_file}` has the weights with timm's
names.{timm}
"""
_TIMM = """
`timm.create_model("hf_hub:{repository}", pretrained=True)` loads it."""


def write_repository(
    model: keras.Model,
    folder: PathLike,
    repository: str,
    *,
    class_names: Sequence[str] | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    trained_on: str | None = None,
    license: str | None = None,
) -> None:
    """Writes the files of a hub repository.

    Args:
        model: A classifier that `ConvMixer` or one of the variants built.
        folder: Path of an empty folder.
        repository: `"USER/REPOSITORY"`, for the model card.
        class_names: Names of the classes in the order of the outputs, or
            `None`.
        crop_fraction: Fraction of an image's shorter side that is kept for
            evaluation. Defaults to the fraction of the published weights.
        orientation: `"exif"`, the default, or `"stored"`, as for
            `data.decode_image`.
        trained_on: Description of the training data, for the model card.
        license: License of the weights, such as `"mit"`.

    Raises:
        ValueError: If the model is not such a classifier.
    """
    arguments = arguments_of(model)
    check_pixels(model)
    if classifier_of(model) is None:
        raise ValueError(
            "Argument `model` must be a classifier. Received: "
            f"{model!r}, which returns features"
        )
    folder = pathlib.Path(folder)
    crop_fraction = crop_fraction or CROP_FRACTION
    orientation = orientation or "exif"
    path = folder / MODEL_FILE
    if class_names is None:
        model.save(path)
    else:
        save_model(model, path, class_names, crop_fraction, orientation)
    save_timm_weights(model, folder / WEIGHTS_FILE)
    config = timm_config(model, arguments, class_names, crop_fraction)
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    card = artifact_card(
        model,
        "a repository for Keras and timm",
        class_names=class_names,
        trained_on=trained_on,
        license=license,
        crop_fraction=crop_fraction,
        orientation=orientation,
    )
    known = config["architecture"] in _timm_names().values()
    use = _USE.format(
        repository=repository,
        model_file=MODEL_FILE,
        weights_file=WEIGHTS_FILE,
        timm=_TIMM.format(repository=repository) if known else "",
    )
    write_text(folder / "README.md", _front_matter(license) + card.text() + use)


def push_to_hub(
    model: keras.Model,
    repository: str,
    *,
    private: bool = False,
    message: str = "Upload a ConvMixer",
    **arguments: Any,
) -> str:
    """Uploads a model to the Hugging Face hub in one commit.

    `huggingface_hub` provides the token: `hf auth login` or `HF_TOKEN`.

    Args:
        model: A classifier that `ConvMixer` or one of the variants built.
        repository: `"USER/REPOSITORY"`. It is created if it doesn't exist.
        private: Whether a new repository is private.
        message: Commit message.
        **arguments: `class_names`, in the order of the outputs; `crop_fraction`
            and `orientation` for reading evaluation images; `trained_on` and
            `license` for the model card.

    Returns:
        The commit, for `open_model("hf://USER/REPOSITORY@COMMIT")`.

    Raises:
        OSError: If the hub can't be reached or rejects the upload.
        ValueError: If the model is not a ConvMixer with a classifier, or
            `repository` is malformed.

    Example:

    ```python
    commit = push_to_hub(model, "user/flowers", class_names=names)
    ```
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(
            "Argument `repository` must be USER/REPOSITORY. "
            f"Received: repository={repository!r}"
        )
    import huggingface_hub  # Imported here because it is slow.

    with tempfile.TemporaryDirectory() as folder:
        write_repository(model, folder, repository, **arguments)
        try:
            api = huggingface_hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            found = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=message
            )
        except Exception as error:
            raise OSError(
                f"Cannot push to the hub repository `{repository}`: "
                f"{hub_error(error, 'upload')}"
            ) from None
    return found.oid


def timm_config(model, arguments, class_names, crop_fraction):
    """Builds the `config.json` for timm and `open_model`."""
    sizes = ("dim", "depth", "kernel_size", "patch_size")
    activation = activation_name(arguments["activation"])
    shape = (*(arguments[size] for size in sizes), activation)
    name = _timm_names().get(shape, f"convmixer_{shape[0]}_{shape[1]}")
    height, width, channels = model.input_shape[1:]
    classes = model.output_shape[-1]
    labels = {"label_names": list(class_names)} if class_names else {}
    return {
        "architecture": name,
        "num_classes": classes,
        "num_features": arguments["dim"],
        "global_pool": "avg",
        "activation": activation,
        **labels,
        "pretrained_cfg": {
            "input_size": [channels, height or 224, width or 224],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": crop_fraction,
            "crop_mode": "center",
            "mean": list(arguments["mean"]),
            "std": list(arguments["std"]),
            "num_classes": classes,
            "first_conv": "stem.0",
            "classifier": "head",
        },
    }


def _timm_names():
    """Maps architectures to timm's model names."""
    return {
        (x.dim, x.depth, x.kernel_size, x.patch_size, x.activation): (
            x.repository.split("/")[1].split(".")[0]
        )
        for x in PUBLISHED_WEIGHTS.values()
        if x.repository
    }


def _front_matter(license):
    lines = ["library_name: keras", "pipeline_tag: image-classification"]
    lines += ["tags:", "- keras", "- timm", "- convmixer"]
    if license:
        lines.append(f"license: {license.lower()}")
    return "\n".join(["---", *lines, "---", "", ""])
