"""Finds a ConvMixer's weights among the entries of a checkpoint.

Training programs store weights under various keys (`state_dict`, `net`), and
modules add prefixes to names (`module.`, `model.`, `_orig_mod.`). This module
needs no list of keys and prefixes: a ConvMixer starts where it finds
`stem.0.weight` and `blocks.0.0.fn.0.weight`.
"""

from convmixer_tf.weights.names import abbreviate
from convmixer_tf.weights.names import starts_of_keras_names
from convmixer_tf.weights.names import starts_of_torch_names

# In timm's order of preference.
_PREFERRED = ("state_dict_ema", "model_ema", "state_dict", "model")


def find_torch(dictionaries, key=None):
    """Finds the one ConvMixer in the dictionaries of a PyTorch checkpoint.

    Args:
        dictionaries: Dictionary from places in the checkpoint, such as
            `"state_dict"`, or `""` for the checkpoint itself, to dictionaries
            from names to values.
        key: Which ConvMixer to read if there are several: its place and its
            prefix, joined by a dot, or the first parts of that.

    Returns:
        Tuple of two: the entries of the ConvMixer without their prefix, and the
        list of the other names.

    Raises:
        ValueError: If there is no ConvMixer, or if `key` matches more than one.
    """
    return _find(dictionaries, key, starts_of_torch_names, ".")


def find_keras(layers, key=None):
    """Finds the one ConvMixer among the layers of a Keras file.

    Args:
        layers: Dictionary from paths of layers to values.
        key: The path of the ConvMixer to read if there are several.

    Returns:
        As for `find_torch`.

    Raises:
        ValueError: As for `find_torch`.
    """
    return _find({"": layers}, key, starts_of_keras_names, "/")


def _find(dictionaries, key, starts_of, separator):
    found = {}
    for place, entries in dictionaries.items():
        for prefix in starts_of(entries):
            parts = [place, prefix.removesuffix(separator)]
            found[separator.join(filter(None, parts))] = place, prefix
    if not found:
        raise ValueError(f"it holds no ConvMixer. {_contents(dictionaries)}")
    place, prefix = _choose(found, key, separator)
    entries = dictionaries[place]
    inside = {
        name.removeprefix(prefix): value
        for name, value in entries.items()
        if name.startswith(prefix)
    }
    return inside, [name for name in entries if not name.startswith(prefix)]


def _choose(found, key, separator):
    """Returns the entry of `found` for `key`, or the only one."""
    if key is None:
        left = list(found.values())
        if {place for place, _ in left} <= set(_PREFERRED):
            first = min((x for x, _ in left), key=_PREFERRED.index)
            left = [x for x in left if x[0] == first]
    else:
        left = [
            x
            for name, x in found.items()
            if (name + separator).startswith(key + separator)
        ]
    if len(left) == 1:
        return left[0]
    names = ", ".join(f"`{name}`" for name in found)
    if key is not None:
        raise ValueError(
            f"argument `key` must be one of its ConvMixers, {names}. Received: "
            f"key={key!r}"
        )
    raise ValueError(
        f"it holds {len(found)} ConvMixers: {names}. Choose one: "
        f'`weights.load_weights(model, path, key="{next(iter(found))}")`, or '
        f"`--key={next(iter(found))}` of `export/convert_weights.py`."
    )


def _contents(dictionaries):
    """Describes a checkpoint without a ConvMixer."""
    parts = [
        f"{len(entries)} tensors{f' under `{place}`' if place else ''} "
        f"({abbreviate(entries)})"
        for place, entries in dictionaries.items()
        if entries
    ]
    return f"It holds {abbreviate(parts, 3) or 'no tensors'}."
