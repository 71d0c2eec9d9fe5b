"""Predictions as text: for people, for other programs, for spreadsheets."""

import csv
import json
import os

from convmixer_tf.files import printable_name


def readable_name(path):
    r"""Writes a path as Unicode, whatever bytes it is of.

    Args:
        path: Path, as Python has it.

    Returns:
        String: the path, with each byte that is not UTF-8 as `\xdf`.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_table(file, predictions, top, class_names):
    """Writes a line for each image: its path and its best classes.

    Args:
        file: Text file to write to.
        predictions: Iterable of `Prediction`.
        top: Integer, how many of the best classes to name.
        class_names: Names of the classes, or `None`.
    """
    for prediction in predictions:
        best = [
            f"{name} {probability:.1%}"
            for name, _, probability in prediction.best(top, class_names)
        ]
        what = ", ".join(best) or prediction.error
        name = printable_name(prediction.image)
        print(f"{name}  {printable_name(what)}", file=file)


def write_csv(file, predictions, top, class_names):
    """Writes a line for each class of an image, or one of the error.

    Args: As for `write_table`.
    """
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["image", "rank", "class", "index", "probability", "error"])
    for prediction in predictions:
        image = readable_name(prediction.image)
        best = prediction.best(top, class_names)
        if not best:
            table.writerow([image, "", "", "", "", prediction.error])
        for rank, (name, index, probability) in enumerate(best, 1):
            row = [image, rank, name, index, f"{probability:.6f}"]
            table.writerow([*row, ""])


def write_json(file, predictions, top, class_names):
    """Writes a list of an object for each image.

    Args: As for `write_table`.
    """
    images = []
    for prediction in predictions:
        best = prediction.best(top, class_names)
        entry = {"image": readable_name(prediction.image)}
        if best:
            keys = ("class", "index", "probability")
            entry["predictions"] = [
                dict(zip(keys, x, strict=True)) for x in best
            ]
        else:
            entry["error"] = prediction.error
        images.append(entry)
    json.dump(images, file, indent=1, ensure_ascii=False, allow_nan=False)
    file.write("\n")


FORMATS = {"table": write_table, "json": write_json, "csv": write_csv}
