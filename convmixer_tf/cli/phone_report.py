"""The report of `convmixer phone`, one HTML file with pictures."""

import base64
import dataclasses
import html
import os

import numpy as np
import tensorflow as tf

from convmixer_tf import data
from convmixer_tf.analysis import class_activation_map
from convmixer_tf.files import printable_name
from convmixer_tf.files import write_text
from convmixer_tf.intervals import wilson_interval
from convmixer_tf.training.finetune import read_validation

_SIDE = 144  # Side of a picture, in pixels.
_MOST_MISTAKES = 12
_MOST_EXAMPLES = 8
_MOST_CLASSES = 20  # In the confusion matrix.
_FOR, _AGAINST = (178, 24, 43), (33, 102, 172)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A photograph that was not used for training, and its prediction.

    Attributes:
        name: Path of the file.
        index: Integer, its index among these photographs.
        truth: Name of its class.
        answer: Name of the predicted class.
        probability: Probability of the predicted class.
        image: uint8 array of shape (height, width, 3).
        overlay: The same, with the class's activation map over it.
    """

    name: str
    index: int
    truth: str
    answer: str
    probability: float
    image: np.ndarray
    overlay: np.ndarray


@dataclasses.dataclass
class Findings:
    """The content of the report.

    Attributes:
        folder: Path of the folder with the files.
        run: Dictionary, the content of `finetune.json`.
        split: `"test"` or `"validation"`, the split of the results.
        probabilities: Array of shape (photographs, classes).
        labels: Integer array of shape (photographs,), or (photographs, classes)
            for multi-label data.
        counts: Dictionary from splits to arrays, the number of photographs of
            each class.
        mistakes: List of wrong `Picture`s, the most confident first.
        examples: List of correct `Picture`s.
        reports: Dictionary from file names to `Report`s.
        failures: Dictionary from names of missing files to reasons.
        milliseconds: Dictionary from file names to the time per image.
    """

    folder: str
    run: dict
    split: str
    probabilities: np.ndarray
    labels: np.ndarray
    counts: dict
    mistakes: list
    examples: list
    reports: dict
    failures: dict
    milliseconds: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, folder, model, splits, run, shown, reports, failures):
        """Collects the findings.

        Args:
            folder: See the attribute.
            model: The `keras.Model`.
            splits: What `data.open_splits` returns.
            run: Dictionary, the content of `finetune.json`.
            shown: The data set of photographs that were not used for training,
                their pixels, labels and names.
            reports: See the attribute.
            failures: See the attribute.
        """
        dataset, pixels, labels, names = shown
        if splits.test is None:
            scores = read_validation(folder)
        else:
            scores = model.predict(np.float32(pixels), verbose=0)
        mistakes, examples = [], []
        if labels.ndim == 1:
            mistakes, examples = _choose(scores, labels)

        def pictures(indices):
            return _pictures(
                model, run, dataset, pixels, scores, labels, names, indices
            )

        return cls(
            folder=os.fspath(folder),
            run=run,
            split="test" if splits.test else "validation",
            probabilities=scores,
            labels=labels,
            counts={
                name: getattr(splits, name).targets().sum(axis=0)
                for name in splits.counts()
            },
            mistakes=pictures(mistakes),
            examples=pictures(examples),
            reports=reports,
            failures=failures,
        )

    @property
    def class_names(self):
        """Names of the classes."""
        return self.run["class_names"]

    @property
    def measured(self):
        """The metrics on the photographs that were not used for training."""
        return self.run[self.split]

    def confusion(self):
        """Returns counts, (classes, classes), by label and by prediction."""
        counts = np.zeros(2 * [len(self.class_names)], int)
        answers = self.probabilities.argmax(axis=-1)
        np.add.at(counts, (self.labels, answers), 1)
        return counts

    def surest(self):
        """Lists correct photographs, the most confident first."""
        best = np.sort(self.probabilities, axis=-1)
        margin = best[:, -1] - best[:, -2]
        answers = self.probabilities.argmax(axis=-1)
        right = answers == self.labels if self.labels.ndim == 1 else margin > 0
        order = np.argsort(-margin, kind="stable")
        return [int(i) for i in order if right[i]]

    def summary(self):
        """Summarizes the accuracy in one or two sentences."""
        found, count = self.measured, len(self.labels)
        if self.run["multi_label"]:
            return (
                "The mean average precision is "
                f"{found['mean_average_precision']:.1%} on {count:,} "
                "photographs that were not used for training."
            )
        low, high = found["interval"]
        return (
            f"The accuracy is {found['top1']:.1%} on {count:,} photographs "
            f"that were not used for training (95 % interval {low:.1%} to "
            f"{high:.1%}). Always predicting the most frequent class would "
            f"give {found['chance']:.1%}."
        )

    def advice(self):
        """Lists suggestions, based on the results."""
        lines = []
        fewest = int(self.counts["train"].argmin())
        number = int(self.counts["train"][fewest])
        if number < 100:
            lines.append(
                "Take more photographs, first of "
                f"“{self.class_names[fewest]}”, which has {number} training "
                "photographs. With more than 100 per class, training all "
                "weights is worthwhile."
            )
        if self.labels.ndim == 1:
            confusion = self.confusion()
            np.fill_diagonal(confusion, 0)
            if confusion.max() >= 3:
                row, column = np.unravel_index(
                    confusion.argmax(), confusion.shape
                )
                lines.append(
                    "The most frequent mistake is to classify "
                    f"“{self.class_names[row]}” as "
                    f"“{self.class_names[column]}” ({confusion[row, column]} "
                    "times). Check these photographs below for wrong labels "
                    "and for pictures with more than one class."
                )
            low, high = self.measured["interval"]
            if high - low > 0.1:
                lines.append(
                    "The 95 % interval of the accuracy is "
                    f"{100 * (high - low):.0f} points wide because it was "
                    f"measured on only {len(self.labels)} photographs. Add "
                    "more photographs in a folder `test` beside `train`."
                )
        if self.split == "validation":
            lines.append(
                "The same photographs were used to select and to measure the "
                "model, so the accuracy is slightly too high. To avoid this, "
                "add a folder `test`."
            )
        if self.run["image_size"] <= 64:
            lines.append(
                f"The model's input has {self.run['image_size']} x "
                f"{self.run['image_size']} pixels. If details are important, "
                "pass `--model 512_16`. It takes 224 x 224 pixels, is 9 times "
                "as large and much slower."
            )
        lines += [
            "Try it on other photographs: `convmixer predict --model "
            f"{os.path.join(self.folder, 'model_float16.tflite')} FOLDER`.",
            "Use it on a phone: `--android` writes the assets of the app in "
            "export/android of the repository. Any app with MediaPipe's "
            "ImageClassifier can use the .tflite files.",
        ]
        return lines


def _choose(scores, labels):
    """Selects the most confident mistakes and correct images per class."""
    answers, best = scores.argmax(axis=-1), scores.max(axis=-1)
    order = np.argsort(-best, kind="stable")
    mistakes = [i for i in order if answers[i] != labels[i]]
    examples, seen = [], {}
    each = max(1, _MOST_EXAMPLES // scores.shape[-1])
    for i in order:
        label = labels[i]
        seen[label] = seen.get(label, 0)
        if answers[i] == label and seen[label] < each:
            seen[label] += 1
            examples.append(i)
    examples.sort(key=lambda i: labels[i])
    return mistakes[:_MOST_MISTAKES], examples[:_MOST_EXAMPLES]


def _pictures(model, run, dataset, pixels, scores, labels, names, indices):
    """Creates pictures of some photographs with their activation maps.

    The answers are those of `scores`. `model` may have learned from the
    validation photographs since.
    """
    if not indices:
        return []
    indices = np.array(indices)
    answers = scores[indices].argmax(axis=-1)
    maps = {}
    for answer in np.unique(answers):
        chosen = indices[answers == answer]
        found = class_activation_map(
            model, np.float32(pixels[chosen]), int(answer)
        )
        maps |= dict(zip(chosen, found.maps, strict=True))
    large, _ = data.read_images(
        dataset.select(indices),
        _SIDE,
        crop_fraction=run["crop_fraction"],
        orientation=run["orientation"],
    )
    classes = run["class_names"]
    return [
        Picture(
            name=names[i],
            index=int(i),
            truth=classes[labels[i]],
            answer=classes[answers[j]],
            probability=float(scores[i, answers[j]]),
            image=large[j],
            overlay=_overlay(large[j], maps[i]),
        )
        for j, i in enumerate(indices)
    ]


def _overlay(image, values):
    """Draws a map over an image: red for the class, blue against it."""
    sides = image.shape[:2]
    values = values / max(float(np.abs(values).max()), 1e-12)
    values = tf.image.resize(values[..., None], sides, "bicubic").numpy()
    alpha = 0.75 * np.abs(values).clip(0, 1) ** 0.7
    color = np.where(values > 0, _FOR, _AGAINST)
    return np.uint8(np.rint((1 - alpha) * image + alpha * color))


def write_report(path, findings):
    """Writes the report.

    Args:
        path: Path of the HTML file, which is replaced.
        findings: `Findings`.
    """
    write_text(path, _page(findings))


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --blue: 33 102 172; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; }
table { border-collapse: collapse; margin: 1rem 0; display: block;
  overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
.confusion td { text-align: center; min-width: 2.5rem;
  border: 1px solid var(--line); }
.confusion .diagonal { font-weight: bold; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 294px; }
figure img { width: 144px; height: 144px; vertical-align: top; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.big { font-size: 1.2rem; }
.bar { display: inline-block; height: .7rem; background: rgb(var(--blue)); }
code { overflow-wrap: anywhere; }
"""


def _page(findings):
    names = findings.class_names
    sections = [
        f"<h1>A classifier of {len(names)} classes</h1>",
        f'<p class="big">{_text(findings.summary())}</p>',
        _section("What to do next", _list(findings.advice())),
        _section("Files", _files(findings)),
    ]
    if findings.labels.ndim == 1:
        sections += [
            _section("Confusion matrix", _confusion(findings)),
            _section("Most confident mistakes", _mistakes(findings)),
        ]
        if findings.examples:
            sections.append(
                _section(
                    "Classified correctly",
                    _figures(
                        findings.examples, "The most confident of each class."
                    ),
                )
            )
    sections += [
        _section("Training", _candidates(findings)),
        _section("Photographs", _counts(findings)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(', '.join(names[:5]))}</title>\n"
        f"<style>{_STYLE}</style>\n" + "\n".join(sections) + "\n</html>\n"
    )


def _text(value):
    """Escapes text and converts backticks to code."""
    parts = html.escape(printable_name(str(value))).split("`")
    return "".join(
        f"<code>{part}</code>" if i % 2 else part
        for i, part in enumerate(parts)
    )


def _section(title, content):
    return f"<h2>{_text(title)}</h2>\n{content}"


def _list(lines):
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _table(titles, rows):
    """Formats a table. All columns except the first have numbers."""

    def row(cells, tag):
        kinds = ["", *(' class="n"' for _ in cells[1:])]
        return "".join(
            f"<{tag}{kind}>{_text(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f"<table><tr>{row(titles, 'th')}</tr>{body}</table>"


def _files(findings):
    model = os.path.join(findings.folder, "model.keras")
    accuracy = findings.measured.get("top1")
    rows = [
        (
            "model.keras",
            f"{os.path.getsize(model) / 1e6:.2f} MB",
            "-" if accuracy is None else f"{accuracy:.1%}",
            "-",
            "-",
        )
    ]
    for name, report in findings.reports.items():
        low, high = report.agreement_interval
        accuracy = report.accuracy and f"{report.accuracy['artifact']:.1%}"
        rows.append(
            (
                name,
                f"{report.size / 1e6:.2f} MB",
                accuracy or "-",
                f"{report.agreement:.1%} ({low:.1%} to {high:.1%})",
                f"{findings.milliseconds.get(name, float('nan')):.2f} ms",
            )
        )
    titles = (
        "file",
        "size",
        "accuracy",
        "agreement with model.keras (95 % interval)",
        "time per image",
    )
    text = (
        "The .tflite files were run in LiteRT, as on a phone, on "
        f"{next((r.images for r in findings.reports.values()), 0):,} "
        "photographs and compared with `model.keras`. Times are for one thread "
        "on the computer that wrote this report. `labels.txt` has the class "
        "names, which are also in the files."
    )
    failed = [
        f"{name} was not written. {reason}"
        for name, reason in findings.failures.items()
    ]
    return _table(titles, rows) + f"<p>{_text(text)}</p>" + _list(failed)


def _confusion(findings):
    counts, names = findings.confusion(), findings.class_names
    if len(names) > _MOST_CLASSES:
        return _pairs(counts, names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = []
    for i, name in enumerate(names):
        cells = "".join(
            f"<td{' class=diagonal' if i == j else ''} style='background:"
            f"rgb(var(--blue) / {0.8 * share[i, j]:.2f})'>{counts[i, j]}</td>"
            for j in range(len(names))
        )
        low, high = wilson_interval(
            int(counts[i, i]), max(int(counts[i].sum()), 1)
        )
        right = (
            f"{share[i, i]:.0%} ({low:.0%} to {high:.0%})"
            if counts[i].sum()
            else "no photographs"
        )
        rows.append(
            f"<tr><th>{_text(name)}</th>{cells}<td>{_text(right)}</td></tr>"
        )
    return (
        "<p>Rows are labels and columns are predictions. The last column is "
        "the accuracy of the label with its 95 % interval.</p>"
        f'<table class="confusion"><tr><th></th>{head}<th>accuracy</th></tr>'
        f"{''.join(rows)}</table>"
    )


def _pairs(counts, names):
    """Lists the most frequent confusions if there are many classes."""
    counts = counts.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MOST_CLASSES]
    pairs = [np.unravel_index(i, counts.shape) for i in order]
    rows = [
        (names[i], names[j], int(counts[i, j]))
        for i, j in pairs
        if counts[i, j]
    ]
    return _table(("label", "prediction", "photographs"), rows)


def _mistakes(findings):
    if not findings.mistakes:
        return "<p>There are no mistakes.</p>"
    wrong = len(findings.labels) - int(np.trace(findings.confusion()))
    return _figures(
        findings.mistakes,
        f"{len(findings.mistakes)} of {wrong}. The right picture of each pair "
        "shows the evidence for the predicted class (red) and against it "
        "(blue).",
    )


def _figures(pictures, text):
    figures = []
    for picture in pictures:
        says = f"“{picture.answer}”, {picture.probability:.0%}"
        if picture.truth != picture.answer:
            says += f"; the label is “{picture.truth}”"
        folder, name = os.path.split(picture.name)
        short = os.path.join(os.path.basename(folder), name)
        images = "".join(
            f'<img alt="" src="{_encoded(image)}"> '
            for image in (picture.image, picture.overlay)
        )
        figures.append(
            f'<figure title="{html.escape(printable_name(picture.name))}">'
            f"{images}<figcaption>{_text(says)}<br>{_text(short)}"
            "</figcaption></figure>"
        )
    return f'<p>{_text(text)}</p><div class="pictures">{"".join(figures)}</div>'


def _encoded(image):
    content = tf.io.encode_jpeg(image, quality=88).numpy()
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _candidates(findings):
    run = findings.run
    titles = {
        "head": "classifier on the pretrained features",
        "all": "all weights",
    }
    figure = "mean_average_precision" if run["multi_label"] else "top1"
    rows = [
        (
            titles.get(name, name) + (", kept" if name == run["kept"] else ""),
            f"{found['validation'][figure]:.1%}",
            f"{found['validation']['loss']:.3f}",
        )
        for name, found in run["candidates"].items()
    ]
    text = f"The training started from {run['model']}. "
    if run["head_only_because"]:
        text += f"Only the head was trained: {run['head_only_because']}."
    else:
        text += (
            "The model with all weights trained is kept if its loss on the "
            "validation photographs is lower and its accuracy is not lower."
        )
    kind = "mean average precision" if run["multi_label"] else "accuracy"
    return f"<p>{_text(text)}</p>" + _table(
        (
            "trained",
            f"{kind} on {run['images']['validation']:,} photographs",
            "loss (lower is better)",
        ),
        rows,
    )


def _counts(findings):
    titles = ("class", *findings.counts)
    rows = [
        (name, *(int(counts[i]) for counts in findings.counts.values()))
        for i, name in enumerate(findings.class_names)
    ]
    text = "`images.csv` lists the split of each photograph."
    return _table(titles, rows) + f"<p>{_text(text)}</p>"
