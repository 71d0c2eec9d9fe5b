"""Model cards: what to know of a model before using it, in Markdown."""

import dataclasses

_MOST_NAMES = 30

_PAGE = """\
# {title}

{about}

**Input**: {input}

**Output**: {output}

**Classes**: {classes}

**Trained on**: {trained_on}

**Measured**: {measured}

**Limits**: a classifier gives one of its classes to every image, whatever is
in it, and how sure it is does not tell. It is as good as measured on images
like those that it was measured on; measure it on yours.

**License of the weights**: {license}
"""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a model card says. What is not known, it says is not known.

    Attributes:
        title: One line.
        about: A paragraph, what it is.
        input: What goes in.
        output: What comes out.
        class_names: Names of the classes, or `None`.
        trained_on: On what, or `None`.
        figures: Dictionary from what was measured to the result, as text.
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
        """Writes the card.

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
    """Makes the model card of a training run, whose figures are the summary's.

    Args:
        model: The `keras.Model`, with probabilities as its output.
        summary: Dictionary, the content of the run's `summary.json`.
        class_names: Names of the classes, in the order of the outputs.
        train_images: Integer, how many images it was trained on.
        eval_images: Integer, how many it was evaluated on.
        crop: Fraction of the side of an image that is evaluated.
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`.

    Returns:
        A `ModelCard`.
    """
    height, width, _ = model.input_shape[1:]
    last, best = summary["last"], summary["best"]
    figures = {
        "top-1": f"{last['top1']:.2%}",
        "top-5": f"{last['top5']:.2%}",
        "loss": f"{last['loss']:.4f}",
    }
    if len(class_names) <= 5:
        del figures["top-5"]  # Always 100 %.
    measured = (
        f"after the last epoch, on {eval_images:,} images for evaluation."
    )
    if best["top1"] > last["top1"]:
        measured += (
            f" Epoch {best['epoch']} was the best,\nwith a top-1 of "
            f"{best['top1']:.2%}; `model.keras` is not of it, but of the last."
        )
    return ModelCard(
        title=f"{model.name}, a run of {last['epoch']} epochs",
        about=f"`{model.name}` ({model.count_params():,} weights), trained by "
        "convmixer_tf: `model.keras`.",
        input=f"pixels in [0, 255], {height} x {width}, three colors. Images "
        f"were cut for evaluation to\n{kept_part(crop)}, bicubic, and were "
        f"{turned(orientation)}.",
        output="probabilities of the classes, which add up to 1.",
        class_names=tuple(class_names),
        trained_on=f"{train_images:,} images an epoch. `config.json` and "
        "`environment.json` have the settings\nand the command, `log.csv` "
        "every epoch.",
        figures=figures,
        measured=measured,
    )


def kept_part(crop):
    """Says which part of an image is evaluated.

    Args:
        crop: Fraction of its shorter side.

    Returns:
        String.
    """
    if crop == 1:
        return "the whole shorter side"
    return f"the central {crop:g} of the shorter side"


def turned(orientation):
    """Says how the orientation in the EXIF of an image file is used.

    Args:
        orientation: `"exif"` or `"stored"`, as for `data.decode_image`.

    Returns:
        String.
    """
    if orientation == "stored":
        return "read as stored, whatever their EXIF orientation"
    return "turned upright by their EXIF orientation"


def _listed(names):
    if not names:
        return "their names are not stated."
    if len(names) > _MOST_NAMES:
        return f"{len(names)}, from {names[0]} to {names[-1]}."
    return f"{', '.join(names)}."
