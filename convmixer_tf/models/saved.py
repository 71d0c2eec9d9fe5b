"""What a saved model says about the weights in it."""

import os

import numpy as np

from convmixer_tf.models.contract import activation_name
from convmixer_tf.models.normalization import statistics_in
from convmixer_tf.weights.keras_files import read_configs


def check_saved(path, activation, normalization):
    """Checks that a model fits the one that its weights were saved with.

    Args:
        path: Path of a file of weights. Only `.keras` files say more of their
            model than its weights.
        activation: Function, the activation of the model.
        normalization: Its layer that `normalization` built, or `None`.

    Raises:
        ValueError: If the activation, the mean or the standard deviation are
            others than in the file.
    """
    configs = read_configs(path)
    saved = configs.get("patch_embed", {}).get("activation")
    ours = activation_name(activation)
    # What has no name can't be compared.
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
        # Adapted to other channels, it is another.
        if len(saved) == len(ours) and not np.allclose(saved, ours):
            raise _differ(path, name, np.round(saved, 4), np.round(ours, 4))


def _differ(path, name, saved, ours):
    if not isinstance(saved, str):
        saved, ours = saved.tolist(), ours.tolist()
    return ValueError(
        f"The model in `{os.fspath(path)}` has {name}={saved!r}, and its "
        "weights are right for no other. Build one like it with the arguments "
        "of `models.read_arguments`, or load it with `models.load_model`. "
        f"Received: {name}={ours!r}"
    )
