"""Checks that a saved model fits the model that loads its weights."""

import os

import numpy as np

from convmixer_tf.models.contract import activation_name
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.weights.keras_files import read_configs


def check_saved(path, activation, normalization):
    """Checks that a model is like the one that its weights were saved with.

    Args:
        path: Path of a weights file. Only `.keras` files hold more than
            weights.
        activation: Function, the activation of the model.
        normalization: The model's layer from `normalization`, or `None`.

    Raises:
        ValueError: If the activation, the mean or the standard deviation differ
            from the file's.
    """
    configs = read_configs(path)
    saved = configs.get("patch_embed", {}).get("activation")
    ours = activation_name(activation)
    # Activations without a name can't be compared.
    if saved != ours and isinstance(saved, str) and isinstance(ours, str):
        raise _differ(path, "activation", saved, ours)
    if normalization is None or "normalization" not in configs:
        return
    for name, saved, ours in zip(
        ("mean", "std"),
        statistics_in(configs["normalization"]),
        statistics_in(normalization.get_config()),
        strict=True,
    ):
        # It differs for another number of channels.
        if len(saved) == len(ours) and not np.allclose(saved, ours):
            raise _differ(path, name, np.round(saved, 4), np.round(ours, 4))


def _differ(path, name, saved, ours):
    if not isinstance(saved, str):
        saved, ours = saved.tolist(), ours.tolist()
    return ValueError(
        f"The model in `{os.fspath(path)}` has {name}={saved!r}, and its "
        "weights require this value. Build the model with it, or load the "
        "file with `models.load_model`. "
        f"Received: {name}={ours!r}"
    )
