"""How far an exported file may be from its model."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an artefact must keep to; `None` switches a limit off.

    Differences are of probabilities, in [0, 1]. Of features they are relative
    to the largest feature. A single output gives a class if it is above 0.5,
    or as a logit above 0.

    Attributes:
        min_agreement: Least fraction of the images to which the artefact and
            the model give the same best class.
        max_difference: Largest absolute difference.
        max_mean_difference: Largest mean absolute difference. Of probabilities
            it is at most 2 / classes: little, where there are many.
        max_accuracy_loss: Most that top-1 accuracy may fall, a fraction.
        max_total_variation: Largest mean over the images of the total
            variation distance of the probabilities, half the sum of their
            absolute differences. However many classes there are, it is 1 if
            artefact and model agree in nothing. It does not hold for features.
        builtin_only: Whether operators that the runtime doesn't bring along
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
                `"custom_operators"` to what was measured, or to `None`.

        Returns:
            Dictionary from the name of each broken limit to a sentence. A
            figure that is not a number breaks its limit.
        """
        broken = {}
        for name, finding, sign in (
            ("min_agreement", "agreement", -1),
            ("max_difference", "max_difference", 1),
            ("max_mean_difference", "mean_difference", 1),
            ("max_accuracy_loss", "accuracy_loss", 1),
            ("max_total_variation", "total_variation", 1),
        ):
            limit, value = getattr(self, name), findings[finding]
            if limit is None or value is None:
                continue
            # Written so that NaN breaks it.
            if not sign * value <= sign * limit:
                side = "above" if sign > 0 else "below"
                words = finding.replace("_", " ")
                broken[name] = f"{words} {value:.4g} is {side} {limit:.4g}"
        custom = findings["custom_operators"]
        if self.builtin_only and custom:
            broken["builtin_only"] = f"operators {', '.join(custom)}"
        return broken


# Of float16, 8 and 4 bits: about twice what networks trained on CIFAR-10 lose
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


def default_limits(scheme):
    """Gives the limits of a number format.

    Args:
        scheme: `"float32"`, `"float16"`, `"dynamic"` (8-bit weights, float
            activations), `"int4"` (the same, of 4 bits in part) or `"int8"`
            (8-bit activations, be it in part).

    Returns:
        `Limits`. Those of float32 hold for SavedModel and ONNX as well.

    Raises:
        ValueError: If the scheme is none of these.
    """
    if scheme not in _DEFAULTS:
        raise ValueError(
            f"Argument `scheme` must be one of {', '.join(_DEFAULTS)}. "
            f"Received: scheme={scheme!r}"
        )
    return _DEFAULTS[scheme]
