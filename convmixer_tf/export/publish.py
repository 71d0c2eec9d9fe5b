"""Writes and verifies exported files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import keras
import numpy as np

from convmixer_tf import files
from convmixer_tf import progress
from convmixer_tf.export.cards import EXPORTED
from convmixer_tf.export.cards import artifact_card
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.export.verification.verify import verify
from convmixer_tf.files import PathLike

if TYPE_CHECKING:
    from convmixer_tf.export.verification.verify import Report


def publish(
    write: Callable[[str], None],
    path: PathLike,
    model: keras.Model,
    kind: str,
    *,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    card: dict | None = None,
    beside: PathLike | None = None,
    appear: Callable = files.replaced,
    inside: str = "",
    confirm: Callable | None = None,
    on_report: Callable | None = None,
    **arguments: Any,
) -> Report | None:
    """Writes an artifact that appears only if it passes verification.

    The artifact is written under a temporary name and compared with the model
    in its runtime. It appears at `path` only if it is within the limits. A
    report (the same name plus `.json`) and a model card (plus `.md`) are
    written beside it. If the artifact breaks a limit, only the report is kept
    (plus `.failed.json`).

    Args:
        write: Function of a path that writes the artifact.
        path: Path of the final file or folder.
        model: The `keras.Model` that was exported.
        kind: Name of the format for the card, such as `"an ONNX file"`.
        images: Real images for the comparison, as for `verify`. `None` skips
            the comparison.
        labels: As for `verify`.
        class_names: Names of the classes, or `None`.
        card: Dictionary of other arguments of `artifact_card`, or `None`.
        beside: Path to which the suffixes of report and card are added.
            Defaults to `path`.
        appear: Context manager from the final path to a temporary one:
            `files.replaced` for a file, `files.replaced_folder` for a folder.
        inside: Path within the artifact that `verify` opens.
        confirm: Function of the temporary path and the images for additional
            checks. It raises `ValueError` if one fails.
        on_report: Function of the `Report` that is called before the limits are
            checked, for example to print it.
        **arguments: Other arguments of `verify`.

    Returns:
        A `Report`, or `None` without images.

    Raises:
        FileExistsError: If the report or the card would replace an unrelated
            file.
        ValueError: If a limit is broken, or the artifact doesn't run.

    Example:

    ```python
    publish(
        lambda path: export_onnx(model, path),
        "model.onnx",
        model,
        "an ONNX file",
        images=images,
        labels=labels,
    )
    ```
    """
    path = os.path.normpath(path)
    beside = beside or path
    _check_beside(path, beside)
    report = None
    with appear(path) as unfinished:
        progress.note("exporting to %s", path)
        write(unfinished)
        if images is not None:
            opened = os.path.join(unfinished, inside) if inside else unfinished
            progress.note("verifying on %d images", len(images))
            report = verify(
                model,
                opened,
                images,
                labels,
                features=classifier_of(model) is None,
                **arguments,
            )
            report = dataclasses.replace(report, artifact=path)
            if on_report:
                on_report(report)
            _check_limits(report, path, beside)
            if confirm:
                confirm(opened, images)
    if report:
        report.save(f"{beside}.json")
        pathlib.Path(f"{beside}.failed.json").unlink(missing_ok=True)
    text = artifact_card(
        model,
        kind,
        report,
        class_names=class_names,
        max_pixel=arguments.get("max_pixel", 255),
        **(card or {}),
    ).text()
    files.write_text(f"{beside}.md", text)
    return report


def _check_limits(report, path, beside):
    if not report.passed:
        report.save(f"{beside}.failed.json")
        raise ValueError(
            f"`{path}` was not written because it is outside the limits: "
            f"{describe(report.broken)}"
        )


def describe(broken):
    """Formats the broken limits of a report as one line."""
    return "; ".join(f"{name}: {text}" for name, text in broken.items())


def _check_beside(path, beside):
    """Raises an error if an unrelated file would be replaced."""
    for suffix, is_ours in ((".json", _is_report), (".md", _is_card)):
        file = pathlib.Path(f"{beside}{suffix}")
        if file.exists() and not is_ours(file.read_bytes(), path):
            raise FileExistsError(
                f"`{file}` is not a report or a model card, so it is not "
                "replaced. Pass another --output."
            )


def _is_report(content, path):
    with contextlib.suppress(KeyError, TypeError, ValueError):
        artifact = json.loads(content)["artifact"]
        return os.path.basename(artifact) == os.path.basename(path)
    return False


def _is_card(content, path):
    del path  # A card does not contain its path.
    return EXPORTED.encode() in content
