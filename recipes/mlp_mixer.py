"""MLP-Mixer: mixing of patches and of channels by dense layers."""

from keras import layers


def mlp_mixer(image, width, depth, patch_size):
    """Builds an MLP-Mixer without its classifier.

    The hidden layers have the sizes of the paper's models: half the width
    where patches are mixed, four times the width where channels are.

    Reference: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for
    Vision", https://arxiv.org/abs/2105.01601

    Args:
        image: Normalised images, a symbolic tensor.
        width: Integer, the number of channels of an embedded patch.
        depth: Integer, the number of blocks.
        patch_size: Integer, side of a patch, in pixels.

    Returns:
        Symbolic tensor of shape (batch, width).
    """
    x = layers.Conv2D(width, patch_size, patch_size, name="patch_embed")(image)
    patches = x.shape[1] * x.shape[2]
    x = layers.Reshape((patches, width), name="patches")(x)
    for i in range(depth):
        name = f"block_{i}"
        y = _norm(f"{name}_patches_norm")(x)
        y = layers.Permute((2, 1), name=f"{name}_to_patches")(y)
        y = _mlp(y, width // 2, patches, f"{name}_patches")
        y = layers.Permute((2, 1), name=f"{name}_to_channels")(y)
        x = layers.Add(name=f"{name}_patches_add")([x, y])
        y = _norm(f"{name}_channels_norm")(x)
        y = _mlp(y, 4 * width, width, f"{name}_channels")
        x = layers.Add(name=f"{name}_channels_add")([x, y])
    x = _norm("norm")(x)
    return layers.GlobalAveragePooling1D(name="avg_pool")(x)


def _norm(name):
    return layers.LayerNormalization(epsilon=1e-6, name=name)


def _mlp(x, hidden, outputs, name):
    x = layers.Dense(hidden, "gelu", name=f"{name}_hidden")(x)
    return layers.Dense(outputs, name=f"{name}_output")(x)
