"""Writes a model's weights for timm."""

from typing import TYPE_CHECKING

import numpy as np

from convmixer_tf.files import PathLike
from convmixer_tf.files import check_destination
from convmixer_tf.files import replaced
from convmixer_tf.weights.effective import effective_weights
from convmixer_tf.weights.effective import is_plain
from convmixer_tf.weights.loading import convmixer_variables
from convmixer_tf.weights.loading import kernel_layers
from convmixer_tf.weights.names import to_timm

if TYPE_CHECKING:
    import keras  # Reading and writing files does not need Keras.


def timm_state_dict(model: "keras.Model") -> dict[str, np.ndarray]:
    """Converts a ConvMixer's weights to a state dict for timm.

    A quantized classifier is dequantized. A LoRA update is added to its kernel.
    The state dict holds the weights that the layers compute with.

    Args:
        model: Functional Keras model that contains the layers of a ConvMixer.

    Returns:
        Dictionary from the names of timm's `ConvMixer` to NumPy arrays in
        PyTorch's layout. `num_batches_tracked` of the batch norms is 0 because
        Keras doesn't count batches.

    Raises:
        ValueError: If the model isn't a ConvMixer.
    """
    weights = {
        path: np.asarray(variable.numpy())
        for path, variable in convmixer_variables(model).items()
    }
    for path, layer in kernel_layers(model).items():
        if not is_plain(layer):
            bias = f"{path.removesuffix('kernel')}bias"
            weights[path], weights[bias] = effective_weights(layer)
    return to_timm(weights)


def save_timm_weights(
    model: "keras.Model", path: PathLike, *, overwrite: bool = False
) -> None:
    """Saves a ConvMixer's weights as a `.safetensors` file for timm.

    `timm.create_model("convmixer_768_32", checkpoint_path=path)` loads it.

    Args:
        model: Functional Keras model that contains the layers of a ConvMixer.
        path: Path of the file to write, ending in `.safetensors`. The file
            appears when it is complete.
        overwrite: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is `False`.
        FileNotFoundError: If its directory doesn't exist.
        ValueError: If the model isn't a ConvMixer or the suffix is wrong.
    """
    check_destination(path, (".safetensors",), overwrite)
    write_safetensors(timm_state_dict(model), path)


def write_safetensors(
    state_dict: dict[str, np.ndarray], path: PathLike
) -> None:
    """Writes a PyTorch state dict as a `.safetensors` file, atomically.

    Args:
        state_dict: Dictionary from names to C-contiguous NumPy arrays.
        path: Path of the file to write.
    """
    from safetensors.numpy import save

    # `save_file` would write a file that only its owner can read.
    content = save(state_dict, metadata={"format": "pt"})
    with replaced(path) as unfinished, open(unfinished, "wb") as file:
        file.write(content)
