"""How far an exported file may be from its model."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of an exported file; `None` switches one off.

    Differences are of probabilities, in [0, 1]. Those of features are relative
    to the largest feature. A single output is compared as two classes.

    Attributes:
        min_agreement: Least fraction of the images to which the file and the
            model give the same best class. Of few images a fraction says
            little: it is broken if all of its 95 % interval is below.
        max_difference: Largest absolute difference.
        max_mean_difference: Largest mean absolute difference. That of
            probabilities is at most 2 / classes, which is small where there
            are many classes.
        max_accuracy_loss: Most that top-1 accuracy may fall, a fraction. It
            is broken if all of the fall's 95 % interval is above.
        max_total_variation: Largest mean over the images of the total
            variation distance of the probabilities, half the sum of their
            absolute differences. It is in [0, 1] for any number of classes.
            It does not apply to features.
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
        """Names the limits that findings break.

        Args:
            findings: Dictionary from `"agreement"`, `"max_difference"`,
                `"mean_difference"`, `"accuracy_loss"`, `"total_variation"` and
                `"custom_operators"` to what was measured, or to `None`; and
                optionally from `"intervals"` to a dictionary from the names
                of counted fractions to their 95 % intervals. Of these a limit
                is broken only if the whole interval is beyond it.

        Returns:
            Dictionary from the name of each broken limit to a sentence. A
            figure that is not a number breaks its limit.
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
            # Written so that NaN breaks it.
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


# float16, 8 and 4 bits: about twice the losses of networks trained on CIFAR-10,
# in export/results.
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
    """Gives the limits of a number format.

    Args:
        quantization: `"float32"`, `"float16"`, `"dynamic"` (8-bit weights,
            float activations), `"int4"` (the same, of 4 bits in part) or
            `"int8"` (8-bit activations, be it in part).

    Returns:
        `Limits`. Those of float32 hold for SavedModel and ONNX as well.

    Raises:
        ValueError: If the quantization is none of these.
    """
    if quantization not in _DEFAULTS:
        raise ValueError(
            f"Argument `quantization` must be one of {', '.join(_DEFAULTS)}. "
            f"Received: quantization={quantization!r}"
        )
    return _DEFAULTS[quantization]
