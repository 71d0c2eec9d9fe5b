"""Copies weights to a model with the same layers."""

import keras

from convmixer_tf.layers import ConvMixerBlock
from convmixer_tf.layers import PatchEmbed
from convmixer_tf.weights.effective import effective_weights
from convmixer_tf.weights.effective import is_plain

_PARTS = {
    PatchEmbed: ("conv", "norm"),
    ConvMixerBlock: (
        "depthwise",
        "depthwise_norm",
        "pointwise",
        "pointwise_norm",
    ),
}


def copy_weights(source, target):
    """Copies weights. Quantized weights and LoRA updates are merged.

    Args:
        source: A `keras.Model`.
        target: A `keras.Model` with the same layers, none of which is quantized
            or has LoRA. Layers without weights are skipped.
    """
    for theirs, ours in zip(_leaves(source), _leaves(target), strict=True):
        if not ours.weights:
            continue
        if is_plain(theirs):
            ours.set_weights(theirs.get_weights())
        else:
            weights = effective_weights(theirs)
            ours.set_weights([w for w in weights if w is not None])


def is_merged(model):
    """Returns whether no layer of `model` is quantized or has LoRA."""
    return all(map(is_plain, _leaves(model)))


def _leaves(layer):
    """Yields the layers in `layer` that hold weights of their own."""
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from _leaves(inner)
    elif type(layer) in _PARTS:
        for name in _PARTS[type(layer)]:
            yield getattr(layer, name)
    else:
        yield layer
