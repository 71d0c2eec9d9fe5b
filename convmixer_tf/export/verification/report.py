"""What verifying an artefact found."""

import dataclasses
import json

from convmixer_tf.export.verification.limits import Limits
from convmixer_tf.files import replaced


@dataclasses.dataclass(frozen=True)
class Report:
    """What verifying an artefact found.

    Attributes:
        artefact: Path of the file or folder.
        runtime: What ran it, with its version.
        scheme: One of those of `default_limits`.
        size: Integer, in bytes.
        images: Integer, how many images there were.
        labelled: Integer, how many of them have a label.
        differences: Dictionary from a quantity (`"probabilities"`,
            `"logits"`, `"features"`) to the `"max"`, `"mean"` and
            `"max_relative"` absolute difference from the model's, or `None`;
            of probabilities also the mean `"total_variation"` distance.
        agreement: Fraction of the images with the same best class.
        classes_seen: Integer, how many classes the model found in the images.
            If there is one, the agreement says nothing.
        accuracy: Top-1 of `"model"` and `"artefact"`, or `None`.
        inputs: List of a dictionary per input: name, shape, dtype, scale,
            zero point.
        outputs: The same of the outputs.
        operators: Dictionary from names to counts.
        custom_operators: Names of those that the runtime doesn't bring along.
        delegation: `"partitions"` and `"not_delegated"`, what XNNPACK does
            not take; `None` if the runtime has no delegates.
        latency: Medians and their ratio to the baseline; `None` if not timed.
        limits: The `Limits` that were asked for.
        broken: Dictionary from the name of each broken limit to a sentence.
    """

    artefact: str
    runtime: str
    scheme: str
    size: int
    images: int
    labelled: int
    differences: dict
    agreement: float | None
    classes_seen: int | None
    accuracy: dict | None
    inputs: list
    outputs: list
    operators: dict
    custom_operators: list
    delegation: dict | None
    latency: dict | None
    limits: Limits
    broken: dict

    @property
    def passed(self):
        """Whether all limits are kept."""
        return not self.broken

    def to_dict(self):
        """Returns everything as a dictionary, ready for JSON."""
        return {**dataclasses.asdict(self), "passed": self.passed}

    def save(self, path):
        """Writes a JSON file; it replaces what is there.

        Args:
            path: Path of the file.
        """
        with replaced(path) as unfinished, open(unfinished, "w") as file:
            json.dump(self.to_dict(), file, indent=1)

    def table(self):
        """Formats what people want to know as a Markdown table."""
        rows = [
            ("artefact", self.artefact),
            ("runtime", f"{self.runtime}, {self.scheme}"),
            ("size", f"{self.size:,} bytes"),
            ("images", f"{self.images}, {self.labelled} with a label"),
            *_comparison_rows(self),
            *_tensor_rows("input", self.inputs),
            *_tensor_rows("output", self.outputs),
            ("operators", _counts(self.operators)),
            ("custom operators", ", ".join(self.custom_operators) or "none"),
            *_speed_rows(self),
            ("verdict", "; ".join(self.broken.values()) or "within limits"),
        ]
        lines = [f"| {name} | {value} |" for name, value in rows]
        return "\n".join(["| | |", "|---|---|", *lines])


def _comparison_rows(report):
    for quantity, found in report.differences.items():
        if found:
            figures = f"max {found['max']:.3g}, mean {found['mean']:.3g}"
            if "total_variation" in found:
                distance = found["total_variation"]
                figures += f", total variation {distance:.3g}"
            yield f"difference of {quantity}", figures
    if report.agreement is not None:
        note = (
            ", but the model gives all images the same class"
            if report.classes_seen == 1
            else ""
        )
        yield "top-1 agreement", f"{report.agreement:.4f}{note}"
    if report.accuracy:
        ours, theirs = report.accuracy["model"], report.accuracy["artefact"]
        yield "top-1 accuracy", f"{theirs:.4f}, of the model {ours:.4f}"


def _tensor_rows(kind, tensors):
    for tensor in tensors:
        sides = " x ".join(str(side or "?") for side in tensor["shape"])
        scale = ""
        if tensor["scale"]:
            scale = (
                f", scale {tensor['scale']:g}, "
                f"zero point {tensor['zero_point']}"
            )
        yield kind, f"{tensor['name']}: {sides}, {tensor['dtype']}{scale}"


def _speed_rows(report):
    if report.delegation:
        left = _counts(report.delegation["not_delegated"]) or "nothing"
        count = report.delegation["partitions"]
        yield "not in XNNPACK", f"{left} ({count} partitions)"
    if report.latency:
        yield (
            "latency",
            f"{report.latency['artefact_ms']:.2f} ms, "
            f"{report.latency['ratio']:.3f} x {report.latency['baseline']}",
        )


def _counts(counts):
    return ", ".join(f"{number} {name}" for name, number in counts.items())
