"""Keeping batch normalization as it is while the rest of a model trains."""

import keras


def freeze_batch_norm(model: keras.Model) -> int:
    """Freezes every batch normalization of a model, wherever it stands.

    Those of a ConvMixer stand inside its blocks, where a loop over
    `model.layers` does not find them. A frozen one normalizes by its stored
    mean and variance, which then stay as they are, like its scale and offset;
    so few images, or small batches, can't spoil them. Files and copies of the
    model keep it. Setting `model.trainable` to `False` and then to `True`
    undoes it; call this again if you unfreeze a body in that way.

    Args:
        model: A `keras.Model` or a layer, built; models in it are searched
            too. Compile it afterwards, as after each change of `trainable`.

    Returns:
        Integer, how many layers were found.

    Raises:
        ValueError: If there is none, or if the model is not built.

    Example:

    ```python
    model = ConvMixer(
        256, 8, 5, 2, input_shape=(32, 32, 3), weights="cifar10", classes=10
    )
    freeze_batch_norm(model)  # 17
    model.compile("adamw", "sparse_categorical_crossentropy")
    ```
    """
    found = [
        layer
        for layer in _layers_in(model, set())
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not found or not getattr(model, "built", False):
        raise ValueError(
            "Argument `model` must be a built model with batch normalization "
            f"in it. Received: {model!r}, with {len(found)} such layers"
        )
    for layer in found:
        layer.trainable = False
    return len(found)


def _layers_in(value, seen):
    """Walks the layers in a layer, in lists and in dictionaries, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.Layer):
        yield value
        value = [*vars(value).values(), *getattr(value, "layers", ())]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _layers_in(inner, seen)
