"""`convmixer phone`: from photographs to verified files for phones."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import sys

import numpy as np

from convmixer_tf import command_line
from convmixer_tf import data
from convmixer_tf import files
from convmixer_tf import models
from convmixer_tf.cli.launch import line_of
from convmixer_tf.cli.phone_report import Findings
from convmixer_tf.cli.phone_report import write_report
from convmixer_tf.cli.steps import Steps
from convmixer_tf.export import export_android
from convmixer_tf.export import export_tflite
from convmixer_tf.export import export_web
from convmixer_tf.export import publish
from convmixer_tf.export.tflite import MIN_CALIBRATION_IMAGES
from convmixer_tf.export.verification import open_runtime
from convmixer_tf.export.verification.verify import MIN_IMAGES
from convmixer_tf.export.web import MODEL_FILE
from convmixer_tf.training import finetune

QUANTIZATIONS = ("float16", "int8")
# Identifies a result folder and describes its inputs.
SETTINGS_FILE = "phone.json"
REPORT_FILE = "report.html"
_RUN_REPORT = "finetune.json"
_CALIBRATION_IMAGES = 300
_VERIFIED_IMAGES = 1000
_TIMED_RUNS = 21


def main(arguments=None):
    """Runs `convmixer phone`.

    Args:
        arguments: List of strings. Defaults to the process' own.

    Returns:
        Integer, the exit status: 0 on success, 1 if a file broke a limit (see
        the report), 2 after another error, 130 after Ctrl-C.
    """
    options = command_line.parse_phone(arguments)
    try:
        findings = make(options)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Run the same command to resume.",
            file=sys.stderr,
        )
        return 130
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        print(f"Error: {' '.join(line.split())}", file=sys.stderr)
        return 2
    print(findings.summary())
    for name, reason in findings.failures.items():
        print(f"{name} was not written: {reason}")
    print(os.path.join(options.output, REPORT_FILE))
    return 1 if findings.failures else 0


def make(options):
    """Creates the files and the report.

    Args:
        options: Options from `command_line.parse_phone`.

    Returns:
        `Findings`, the content of the report.

    Raises:
        FileExistsError: If the folder has other content.
        FileNotFoundError: If the photographs or the model do not exist.
        ValueError: If the photographs are not suitable for training.
    """
    names = [
        "Read the photographs",
        "Train the classifier",
        *(f"Write and verify the {x} file" for x in QUANTIZATIONS),
        *(["Write the app's assets"] if options.android else []),
        *(["Write and verify the page's model"] if options.web else []),
        "Measure times, write the report",
    ]
    folder = pathlib.Path(options.output)
    _check_folder(folder)
    steps = Steps(names)
    with steps.shown(), files.made_parents(folder / SETTINGS_FILE):
        with steps.step():
            splits = data.open_splits(options.photos)
            _check_number(splits)
            _prepare_folder(folder, splits, options)
        with steps.step():
            model, report = _learn(folder, splits, options)
        samples = _Samples(splits, report)
        failures, reports = {}, {}
        for quantization in QUANTIZATIONS:
            name = f"model_{quantization}.tflite"
            with steps.step(), _noted(failures, name):
                reports[name] = _export(
                    folder / name, quantization, model, samples, report
                )
        findings = Findings.of(
            folder, model, splits, report, samples.shown, reports, failures
        )
        if options.android:
            with steps.step(), _noted(failures, "android"):
                _write_android(folder, findings, samples)
        if options.web:
            with steps.step(), _noted(failures, "web"):
                _write_web(folder, model, samples, report)
        with steps.step():
            for name in reports:
                findings.milliseconds[name] = _time(
                    folder / name, samples.verified[0][0]
                )
            write_report(folder / REPORT_FILE, findings)
    return findings


@contextlib.contextmanager
def _noted(failures, name):
    """Records an error and continues with the other files."""
    try:
        yield
    except ValueError as error:
        failures[name] = str(error)


def _check_folder(folder):
    """Raises an error early if the folder has other content."""
    if folder.is_file():
        raise NotADirectoryError(f"`{folder}` is a file. Pass a folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / SETTINGS_FILE).is_file():
        raise FileExistsError(
            f"`{folder}` has other content. Pass another --output."
        )


def _check_number(splits):
    counts = splits.counts()
    if len(splits.class_names) < 2:
        raise ValueError(
            "There must be at least two classes, each in a separate folder. "
            f"Received: {', '.join(splits.class_names)}"
        )
    needed = max(MIN_IMAGES, MIN_CALIBRATION_IMAGES)
    if counts["train"] < needed:
        raise ValueError(
            f"There must be at least {needed} training photographs, and a few "
            "more for validation. Received: "
            f"{', '.join(f'{n} for {name}' for name, n in counts.items())}"
        )


def _prepare_folder(folder, splits, options):
    """Writes the folder's inputs to it and removes other results."""
    settings = {
        "photographs": _digest(splits),
        "model": options.model,
        "image_size": options.image_size,
        "frozen": options.frozen,
    }
    path = folder / SETTINGS_FILE
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) == settings:
            return
        if not options.overwrite:
            raise FileExistsError(
                f"`{folder}` holds a result for other photographs or options. "
                "To replace it, pass --overwrite. Or pass another --output."
            )
        for name in ("training", "android", "web"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for pattern in ("model*", "*.json", "*.csv", "report.html"):
            for file in folder.glob(pattern):
                file.unlink()
    files.dump_json(path, settings)


def _digest(splits):
    """Returns a hash of the photographs' contents and classes."""
    digest = hashlib.sha256(repr(splits.class_names).encode())
    for name in splits.counts():
        part = getattr(splits, name)
        digest.update(name.encode())
        digest.update(part.labels.numpy().tobytes())
        for i, file in enumerate(part.names.numpy()):
            if part.contents is None:
                digest.update(file + str(os.path.getsize(file)).encode())
            else:
                digest.update(part.contents[i].numpy())
    return digest.hexdigest()


def _learn(folder, splits, options):
    """Fine-tunes the model, or loads the result of an earlier call."""
    path, report_file = folder / "model.keras", folder / _RUN_REPORT
    text = "\n".join(splits.class_names) + "\n"
    files.write_text(folder / "labels.txt", text)
    if not (path.is_file() and report_file.is_file()):
        finetune(
            splits,
            options.model,
            folder,
            frozen=options.frozen,
            image_size=options.image_size,
        )
    # As after a stop, so that a resumed run gives the same result.
    report = json.loads(report_file.read_text(encoding="utf-8"))
    return models.load_model(path), report


class _Samples:
    """The photographs for export and verification, as pixels.

    Attributes:
        shown: Pixels, labels and file names of the photographs that were not
            used for training.
        verified: Pixels and labels for the verification: the same photographs
            and, if they are few, training photographs. Photographs that the
            final model learned from have no labels, because they would bias the
            accuracy.
        calibration: Pixels for the calibration of int8 files.
    """

    def __init__(self, splits, report):
        held_out = splits.test or splits.validation
        read = {
            "image_size": report["image_size"],
            "crop_fraction": report["crop_fraction"],
            "orientation": report["orientation"],
        }
        pixels, labels = data.read_images(held_out, **read)
        names = [os.fsdecode(name) for name in held_out.names.numpy()]
        self.shown = held_out, pixels, labels, names
        self.calibration, _ = data.read_images(
            splits.train, limit=_CALIBRATION_IMAGES, **read
        )
        learned = report["refitted"] and splits.test is None
        has_labels = labels.ndim == 1 and not learned
        known = labels if has_labels else np.full(len(labels), -1)
        pixels, known = pixels[:_VERIFIED_IMAGES], known[:_VERIFIED_IMAGES]
        if len(pixels) < MIN_IMAGES:
            pixels = np.concatenate([pixels, self.calibration])
            unknown = np.full(len(self.calibration), -1)
            known = np.concatenate([known, unknown])
        self.verified = pixels, known


def _export(path, quantization, model, samples, report):
    """Writes and verifies a file."""
    names = tuple(report["class_names"])
    _forget_unfinished(path)

    def write(unfinished):
        export_tflite(
            model,
            unfinished,
            quantization=quantization,
            calibration_images=(
                samples.calibration if quantization == "int8" else None
            ),
            class_names=names,
            crop_fraction=report["crop_fraction"],
            orientation=report["orientation"],
        )

    return _published(path, write, model, samples, report, quantization)


def _forget_unfinished(path):
    """Removes the temporary files of a killed process."""
    for rest in path.parent.glob(f".*.{path.name}"):
        if rest.is_dir():
            shutil.rmtree(rest)
        else:
            rest.unlink()


def _learned_from(report):
    """Returns the number of photographs that the final model learned from."""
    images = report["images"]
    return images["train"] + report["refitted"] * images["validation"]


def _published(path, write, model, samples, report, quantization, **arguments):
    images, labels = samples.verified
    return publish(
        write,
        path,
        model,
        f"a TFLite file ({quantization})",
        images=images,
        labels=labels,
        class_names=tuple(report["class_names"]),
        card={
            "trained_on": f"{_learned_from(report):,} photographs.",
            "crop_fraction": report["crop_fraction"],
            "orientation": report["orientation"],
        },
        **arguments,
    )


def _write_android(folder, findings, samples):
    """Writes the app's assets with the most confident photograph."""
    name = next((x for x in reversed(findings.reports)), None)
    if name is None:
        raise ValueError("No file for the app passed the verification.")
    paths = samples.shown[3]
    order = [i for i in findings.surest() if os.path.isfile(paths[i])]
    error = None
    for index in order[:20]:
        try:
            export_android(
                folder / name,
                folder / "android",
                paths[index],
                overwrite=True,
            )
            return
        except ValueError as problem:
            error = problem
    raise ValueError(
        "The app's self-test needs a photograph that the model classifies "
        f"confidently, but there is none. {error or ''}"
    )


def _write_web(folder, model, samples, report):
    path = folder / "web"
    _forget_unfinished(path)

    def write(unfinished):
        shutil.rmtree(unfinished, ignore_errors=True)
        export_web(
            model,
            unfinished,
            tuple(report["class_names"]),
            quantization="dynamic",
            crop_fraction=report["crop_fraction"],
            orientation=report["orientation"],
        )

    _published(
        path,
        write,
        model,
        samples,
        report,
        "dynamic",
        beside=folder / "web_model",
        appear=files.replaced_folder,
        inside=MODEL_FILE,
    )


def _time(path, image):
    """Measures the time per image on one thread, in milliseconds."""
    batch = np.float32(image)[None]
    with open_runtime(path) as runtime:
        seconds = [runtime.run(batch)[1] for _ in range(_TIMED_RUNS)]
    return 1e3 * statistics.median(seconds)
