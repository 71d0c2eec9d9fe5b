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
# What the folder is known by, and what its results were made of.
SETTINGS_FILE = "phone.json"
REPORT_FILE = "report.html"
_RUN_REPORT = "finetune.json"
_CALIBRATION_IMAGES = 300
_VERIFIED_IMAGES = 1000
_TIMED_RUNS = 21


def main(arguments=None):
    """Makes what the command line of `convmixer phone` asks for.

    Args:
        arguments: List of strings. Defaults to the process' own.

    Returns:
        Integer, the exit status: 0; 1 if a file broke a limit, as the report
        says; 2 if nothing can be done; 130 after Ctrl-C.
    """
    options = command_line.parse_phone(arguments)
    try:
        findings = make(options)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. The same command goes on from here.",
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
    """Makes the files and the report.

    Args:
        options: What `command_line.parse_phone` returns.

    Returns:
        `Findings`, the content of the report.

    Raises:
        FileExistsError: If the folder holds something else.
        FileNotFoundError: If there are no such photographs, or no such model.
        ValueError: If they can't be learned.
    """
    names = [
        "Read the photographs",
        "Learn the classes",
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
    """Notes what is not right, as the rest may be."""
    try:
        yield
    except ValueError as error:
        failures[name] = str(error)


def _check_folder(folder):
    """Refuses a folder of anything else, before time is spent."""
    if folder.is_file():
        raise NotADirectoryError(f"`{folder}` is a file. Pass a folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / SETTINGS_FILE).is_file():
        raise FileExistsError(
            f"`{folder}` has other things in it. Pass another --output."
        )


def _check_number(splits):
    counts = splits.counts()
    if len(splits.class_names) < 2:
        raise ValueError(
            "There must be two classes or more, each in a folder of its own. "
            f"Received: {', '.join(splits.class_names)}"
        )
    needed = max(MIN_IMAGES, MIN_CALIBRATION_IMAGES)
    if counts["train"] < needed:
        raise ValueError(
            f"There must be at least {needed} photographs to learn from, and "
            "a few more to choose by. Received: "
            f"{', '.join(f'{n} for {name}' for name, n in counts.items())}"
        )


def _prepare_folder(folder, splits, options):
    """Makes the folder say what it is of; empties it of other results."""
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
                f"`{folder}` holds a result of other photographs or options. "
                "To replace it, pass --overwrite; or another --output."
            )
        for name in ("training", "android", "web"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for pattern in ("model*", "*.json", "*.csv", "report.html"):
            for file in folder.glob(pattern):
                file.unlink()
    files.dump_json(path, settings)


def _digest(splits):
    """Identifies the photographs by what is in them, and by their classes."""
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
    """Fine-tunes, or takes what a former call has finished."""
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
    # As after a stop, so that a run that was stopped gives the same.
    report = json.loads(report_file.read_text(encoding="utf-8"))
    return models.load_model(path), report


class _Samples:
    """The photographs that files are made and judged with, as pixels.

    Attributes:
        shown: Pixels, labels and names of files of the photographs that were
            not learned from.
        verified: Pixels and labels to compare files on: those, and where they
            are few, those that were learned from. What the final model learned
            from has no labels: it would flatter the accuracy of the files.
        calibration: Pixels that int8 files take their ranges from.
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
    """Removes what a process that was killed left behind."""
    for rest in path.parent.glob(f".*.{path.name}"):
        if rest.is_dir():
            shutil.rmtree(rest)
        else:
            rest.unlink()


def _learned_from(report):
    """Counts the photographs that the final model learned from."""
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
    """Writes the app's assets, with the photograph the model is surest of."""
    name = next((x for x in reversed(findings.reports)), None)
    if name is None:
        raise ValueError("There is no file for the app: none was right.")
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
        "The app's self-test needs a photograph of which the model is sure, "
        f"and there is none. {error or ''}"
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
    """Measures the time of an image on one thread, in milliseconds."""
    batch = np.float32(image)[None]
    with open_runtime(path) as runtime:
        seconds = [runtime.run(batch)[1] for _ in range(_TIMED_RUNS)]
    return 1e3 * statistics.median(seconds)
