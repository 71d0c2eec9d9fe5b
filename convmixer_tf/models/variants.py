"""The three ConvMixers whose ImageNet weights are published."""

from convmixer_tf.models.convmixer import ConvMixer

_DOCSTRING = """Builds ConvMixer-{dim}/{depth}: {about}.

Its kernel is {kernel_size} x {kernel_size} patches, its patch
{patch_size} x {patch_size} pixels. The pretrained weights are those that
timm publishes, fetched once and kept in the Hugging Face cache.

Args:
    include_top: As `ConvMixer` has it, like all the arguments here.
    weights: `"imagenet"`, the default, or as `ConvMixer` has it.
    input_tensor: As `ConvMixer` has it.
    input_shape: As `ConvMixer` has it.
    pooling: As `ConvMixer` has it.
    classes: As `ConvMixer` has it.
    classifier_activation: As `ConvMixer` has it.
    name: As `ConvMixer` has it.
    **kwargs: The arguments that `ConvMixer` takes by keyword only.

Returns:
    A `keras.Model`.

Raises:
    ValueError: If an argument is invalid, or if the weights do not fit.
    OSError: If the weights can't be fetched.

Example:

```python
model = {title}(weights=None)
model(np.zeros((1, 224, 224, 3))).shape  # (1, 1000)
```
"""


def _variant(name, dim, depth, kernel_size, patch_size, activation, about):
    title, default_name = f"ConvMixer{name}", f"convmixer_{name}"

    def build(
        include_top=True,
        weights="imagenet",
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=1000,
        classifier_activation="softmax",
        name=default_name,
        **kwargs,
    ):
        return ConvMixer(
            dim,
            depth,
            kernel_size,
            patch_size,
            activation,
            include_top,
            weights,
            input_tensor,
            input_shape,
            pooling,
            classes,
            classifier_activation,
            name,
            **kwargs,
        )

    build.__name__ = build.__qualname__ = title
    build.__doc__ = _DOCSTRING.format(
        title=title,
        dim=dim,
        depth=depth,
        kernel_size=kernel_size,
        patch_size=patch_size,
        about=about,
    )
    return build


ConvMixer1536_20 = _variant(
    "1536_20", 1536, 20, 9, 7, "gelu", "51.6M parameters, GELU"
)
ConvMixer768_32 = _variant(
    "768_32", 768, 32, 7, 7, "relu", "21.1M parameters, ReLU"
)
ConvMixer1024_20 = _variant(
    "1024_20", 1024, 20, 9, 14, "gelu", "24.4M parameters, GELU"
)
