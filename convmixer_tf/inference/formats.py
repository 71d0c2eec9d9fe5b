"""Writes predictions as a table, as JSON and as CSV."""

import csv
import json
import os

from convmixer_tf.files import printable_name


def readable_name(path):
    r"""Converts a path to Unicode, whatever bytes it has.

    Args:
        path: Path as Python represents it.

    Returns:
        String: the path, with each byte that is not UTF-8 as `\xdf`.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_table(file, predictions, top, class_names):
    """Writes a line for each image: its path and its top classes.

    Args:
        file: Text file to write to.
        predictions: Iterable of `Prediction`.
        top: Integer, the number of top classes to write.
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
    """Writes a line for each class of an image, or a line with the error.

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
    """Writes a list with an object for each image.

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
