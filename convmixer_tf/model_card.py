"""Model cards in Markdown."""

import dataclasses

import keras

_MOST_NAMES = 30

_PAGE = """\
# {title}

{about}

**Input**: {input}

**Output**: {output}

**Classes**: {classes}

**Trained on**: {trained_on}

**Measured**: {measured}

**Limits**: a classifier assigns one of its classes to every image, even if the
image shows none of them. A high probability does not rule that out. The
measured accuracy holds for images like the evaluation images; evaluate the
model on your own images.

**License of the weights**: {license}
"""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The content of a model card. Unknown facts are stated as unknown.

    Attributes:
        title: One line.
        about: A paragraph that describes the model.
        input: Description of the input.
        output: Description of the output.
        class_names: Names of the classes, or `None`.
        trained_on: Description of the training data, or `None`.
        figures: Dictionary from names of measurements to results, as text.
        measured: A sentence on how it was measured, or why it was not.
        license: License of the weights, or `None`.
    """

    title: str
    about: str
    input: str
    output: str
    class_names: tuple | None = None
    trained_on: str | None = None
    figures: dict = dataclasses.field(default_factory=dict)
    measured: str = "not measured."
    license: str | None = None

    def text(self):
        """Formats the card.

        Returns:
            String, Markdown.
        """
        rows = [f"| {name} | {value} |" for name, value in self.figures.items()]
        table = ["", "| | |", "|---|---|", *rows] if rows else []
        return _PAGE.format(
            title=self.title,
            about=self.about,
            input=self.input,
            output=self.output,
            classes=_listed(self.class_names),
            trained_on=self.trained_on or "not stated.",
            measured="\n".join([self.measured, *table]),
            license=self.license or "not stated.",
        )


def run_card(
    model,
    summary,
    class_names,
    train_images,
    eval_images,
    crop,
    orientation="exif",
):
    """Creates the model card of a training run from its summary.

    Args:
        model: The `keras.Model`, with probabilities as its output.
        summary: Dictionary, the content of the run's `summary.json`.
        class_names: Names of the classes, in the order of the outputs.
        train_images: Integer, the number of training images.
        eval_images: Integer, the number of evaluation images.
        crop: Fraction of an image's side that is kept for evaluation.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`.

    Returns:
        A `ModelCard`.
    """
    activation = getattr(model.layers[-1], "activation", None)
    exclusive = activation is not keras.activations.sigmoid
    height, width, _ = model.input_shape[1:]
    last, best = summary["last"], summary["best"]
    figures = {
        "top-1": f"{last['top1']:.2%}",
        "top-5": f"{last['top5']:.2%}",
        "loss": f"{last['loss']:.4f}",
    }
    if len(class_names) <= 5:
        del figures["top-5"]  # Always 100 %.
    for name in ("balanced_accuracy", "mean_average_precision"):
        if name in last:
            figures[name.replace("_", " ")] = f"{last[name]:.4f}"
    measured = f"after the last epoch, on {eval_images:,} evaluation images."
    if best["top1"] > last["top1"]:
        measured += (
            f" Epoch {best['epoch']} had the best top-1 accuracy,\n"
            f"{best['top1']:.2%}. `model.keras` is from the last epoch."
        )
    return ModelCard(
        title=f"{model.name}, a run of {last['epoch']} epochs",
        about=f"`{model.name}` ({model.count_params():,} weights), trained by "
        "convmixer_tf: `model.keras`.",
        input=f"pixels in [0, 255], {height} x {width}, RGB. For "
        f"evaluation, images were cropped to\n{kept_part(crop)}, resized "
        f"(bicubic) and {turned(orientation)}.",
        output="probabilities of the classes, which "
        + ("add up to 1." if exclusive else "do not exclude each other."),
        class_names=tuple(class_names),
        trained_on=f"{train_images:,} images per epoch. `config.json` and "
        "`environment.json` have the settings\nand the command, `log.csv` has "
        "the results of every epoch.",
        figures=figures,
        measured=measured,
    )


def kept_part(crop):
    """Describes which part of an image is kept for evaluation.

    Args:
        crop: Fraction of its shorter side.

    Returns:
        String.
    """
    if crop == 1:
        return "the whole shorter side"
    return f"the central {crop:g} of the shorter side"


def turned(orientation):
    """Describes how the EXIF orientation of an image file is used.

    Args:
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`.

    Returns:
        String.
    """
    if orientation == "stored":
        return "read as stored, without EXIF orientation"
    return "rotated by their EXIF orientation"


def _listed(names):
    if not names:
        return "their names are not stated."
    if len(names) > _MOST_NAMES:
        return f"{len(names)}, from {names[0]} to {names[-1]}."
    return f"{', '.join(names)}."
