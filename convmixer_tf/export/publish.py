"""Writes an exported file so that it appears only if it is right."""

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
    """Writes an artifact, verifies it in its runtime, and lets it appear.

    The artifact is written under a temporary name and compared with the model.
    It appears at `path` only if it is within the limits. A report in JSON lies
    beside it, with `.json` added to its name, and a model card, with `.md`. Of
    an artifact that breaks a limit only the report stays, as `.failed.json`.

    Args:
        write: Function of a path, which writes the artifact there.
        path: Path of the file or folder that is to appear.
        model: The `keras.Model` that the artifact was made from.
        kind: What the artifact is, for its card, such as `"an ONNX file"`.
        images: Real images to compare on, as `verify` takes them. `None`
            leaves the comparison out.
        labels: As for `verify`.
        class_names: Names of the classes, or `None`.
        card: Dictionary of further arguments of `artifact_card`, or `None`.
        beside: Path that the report and the card add their suffixes to.
            Defaults to `path`.
        appear: Context manager from the final path to a temporary one:
            `files.replaced` for a file, `files.replaced_folder` for a folder.
        inside: Path, within the artifact, of what `verify` opens.
        confirm: Function of the temporary path and the images, which raises
            `ValueError` if more is wrong than `verify` sees.
        on_report: Function of the `Report`, called before the limits are
            checked, for instance to print it.
        **arguments: Further ones of `verify`.

    Returns:
        A `Report`, or `None` without images.

    Raises:
        FileExistsError: If something else is where the report or the card
            belongs.
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
            f"`{path}` was not written, since what was exported is outside "
            f"the limits: {describe(report.broken)}"
        )


def describe(broken):
    """Puts the broken limits of a report into one line."""
    return "; ".join(f"{name}: {text}" for name, text in broken.items())


def _check_beside(path, beside):
    """Refuses to replace what is no report or card of such an artifact."""
    for suffix, is_ours in ((".json", _is_report), (".md", _is_card)):
        file = pathlib.Path(f"{beside}{suffix}")
        if file.exists() and not is_ours(file.read_bytes(), path):
            raise FileExistsError(
                f"`{file}` is something else, and the report or the model card "
                "would be written there. Pass another --output."
            )


def _is_report(content, path):
    with contextlib.suppress(KeyError, TypeError, ValueError):
        artifact = json.loads(content)["artifact"]
        return os.path.basename(artifact) == os.path.basename(path)
    return False


def _is_card(content, path):
    del path  # It does not say where it was written.
    return EXPORTED.encode() in content
