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

**Licence of the weights**: {license}
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
        license: Licence of the weights, or `None`.
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


def _listed(names):
    if not names:
        return "their names are not stated."
    if len(names) > _MOST_NAMES:
        return f"{len(names)}, from {names[0]} to {names[-1]}."
    return f"{', '.join(names)}."
