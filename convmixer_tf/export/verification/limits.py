"""Limits for the difference between an exported file and its model."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of an exported file. `None` disables a limit.

    Differences are between probabilities, in [0, 1]. Differences between
    features are relative to the largest feature. A single output is compared as
    two classes.

    Attributes:
        min_agreement: Minimum fraction of images with the same top class in the
            file and the model. A fraction of few images is uncertain, so the
            limit is broken only if the whole 95 % interval is below it.
        max_difference: Maximum absolute difference.
        max_mean_difference: Maximum mean absolute difference. For
            probabilities, it is at most 2 / classes, which is small for many
            classes.
        max_accuracy_loss: Maximum drop in top-1 accuracy, a fraction. It is
            broken only if the whole 95 % interval of the drop is above it.
        max_total_variation: Maximum total variation distance of the
            probabilities (half the sum of their absolute differences), averaged
            over images. It is in [0, 1] for any number of classes. It does not
            apply to features.
        builtin_only: Whether operators that are not built into the runtime
            break a limit.
    """

    min_agreement: float | None = 0.999
    max_difference: float | None = 1e-4
    max_mean_difference: float | None = 1e-5
    max_accuracy_loss: float | None = 0.001
    max_total_variation: float | None = 5e-5
    builtin_only: bool = True

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "builtin_only" or value is None:
                continue
            if not 0 <= value <= 1:
                raise ValueError(
                    f"Argument `{field.name}` must be None or a number in "
                    f"[0, 1]. Received: {field.name}={value!r}"
                )

    def broken_by(self, findings):
        """Returns the limits that measurements break.

        Args:
            findings: Dictionary from `"agreement"`, `"max_difference"`,
                `"mean_difference"`, `"accuracy_loss"`, `"total_variation"` and
                `"custom_operators"` to a measured value or `None`. An optional
                entry `"intervals"` maps names of counted fractions to 95 %
                intervals. Their limits are broken only if the whole interval is
                beyond the limit.

        Returns:
            Dictionary from the name of each broken limit to a sentence. NaN
            breaks a limit.
        """
        broken = {}
        for name, finding in (
            ("min_agreement", "agreement"),
            ("max_difference", "max_difference"),
            ("max_mean_difference", "mean_difference"),
            ("max_accuracy_loss", "accuracy_loss"),
            ("max_total_variation", "total_variation"),
        ):
            limit, value = getattr(self, name), findings[finding]
            if limit is None or value is None:
                continue
            least = name.startswith("min")
            low, high = findings.get("intervals", {}).get(
                finding, (value, value)
            )
            # In this form, NaN breaks the limit.
            if not (high >= limit if least else low <= limit):
                side = "below" if least else "above"
                quantity = finding.replace("_", " ")
                text = f"{quantity} {value:.4g}"
                if low < high:
                    text += f" (95 % interval {low:.4g} to {high:.4g})"
                broken[name] = f"{text} is {side} {limit:.4g}"
        custom = findings["custom_operators"]
        if self.builtin_only and custom:
            broken["builtin_only"] = f"operators {', '.join(custom)}"
        return broken


# float16, 8 and 4 bits: about twice the losses of the networks trained on
# CIFAR-10 in export/results.
_DEFAULTS = {
    "float32": Limits(),
    "float16": Limits(
        max_difference=0.05,
        max_mean_difference=0.002,
        max_total_variation=0.01,
    ),
    "dynamic": Limits(
        min_agreement=0.985,
        max_difference=None,
        max_mean_difference=0.02,
        max_accuracy_loss=0.01,
        max_total_variation=0.1,
    ),
    "int4": Limits(
        min_agreement=0.89,
        max_difference=None,
        max_mean_difference=0.03,
        max_accuracy_loss=0.02,
        max_total_variation=0.15,
    ),
    "int8": Limits(
        min_agreement=0.95,
        max_difference=None,
        max_mean_difference=0.05,
        max_accuracy_loss=0.02,
        max_total_variation=0.25,
    ),
}


def default_limits(quantization):
    """Returns the default limits of a number format.

    Args:
        quantization: `"float32"`, `"float16"`, `"dynamic"` (8-bit weights,
            float activations), `"int4"` (the same with some 4-bit weights) or
            `"int8"` (8-bit activations, at least in part).

    Returns:
        `Limits`. The float32 limits also apply to SavedModel and ONNX.

    Raises:
        ValueError: If the quantization is none of these.
    """
    if quantization not in _DEFAULTS:
        raise ValueError(
            f"Argument `quantization` must be one of {', '.join(_DEFAULTS)}. "
            f"Received: quantization={quantization!r}"
        )
    return _DEFAULTS[quantization]
