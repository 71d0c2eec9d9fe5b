"""Predictions or features of any number of images, on one machine or many.

The images are divided into parts, in a fixed order. A worker computes a part
and writes it as one Parquet file, which has a temporary name until it is
complete. Therefore every file with a final name is correct, even if processes
are killed, and a rerun computes the missing parts. Ray Data starts the workers,
sends them parts, and restarts them if they fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import time
import zlib

from convmixer_tf import progress
from convmixer_tf.data.validation import check_crop_fraction
from convmixer_tf.files import PathLike
from convmixer_tf.files import is_remote
from convmixer_tf.inference.bulk_inputs import find_parts
from convmixer_tf.inference.bulk_outputs import MANIFEST
from convmixer_tf.inference.bulk_outputs import claim
from convmixer_tf.inference.bulk_outputs import count_errors
from convmixer_tf.inference.bulk_outputs import delete
from convmixer_tf.inference.bulk_outputs import file_of
from convmixer_tf.inference.bulk_outputs import names_in
from convmixer_tf.inference.bulk_worker import ERRORS
from convmixer_tf.inference.bulk_worker import Settings
from convmixer_tf.inference.bulk_worker import Worker
from convmixer_tf.models.rebuilding import find_model
from convmixer_tf.models.variants import VARIANTS
from convmixer_tf.timing import available_cores
from convmixer_tf.validation import check_orientation
from convmixer_tf.validation import check_positive_integer
from convmixer_tf.weights.hub import HUB
from convmixer_tf.weights.hub import fetch_from_hub

_LOG = logging.getLogger(__name__)

FEATURES = ("float16", "float32")
# Size of Ray's object store, in bytes. It holds only parts and counts.
_OBJECT_STORE = 2**27


@dataclasses.dataclass(frozen=True)
class MapReport:
    """The result of `map_images`.

    Attributes:
        images: Integer, the number of rows in the output.
        computed: Integer, the number of rows that this call computed.
        failed: Integer, the number of rows in the output that have an error.
    """

    images: int
    computed: int
    failed: int


def map_images(
    source: PathLike,
    output: PathLike,
    model: PathLike = "256_8",
    *,
    features: str | None = None,
    top: int = 5,
    batch_size: int = 64,
    image_size: int | None = None,
    crop_fraction: float | None = None,
    orientation: str | None = None,
    workers: int = 1,
    gpus: float = 0,
    address: str | None = None,
) -> MapReport:
    """Predicts all images of a source and writes the results as Parquet.

    The same call resumes a run that was stopped or killed. Each image is one
    row of the output, also if it is listed twice. Rows with an error are kept.
    The columns are `path`; either `features`, or `classes`, `indices` and
    `probabilities` with the best class first; and `error`, the reason if an
    image has no result. The results are equal to those of `predict_images`.

    Args:
        source: Path or URL, such as `gs://BUCKET/FOLDER`. One of

            - a folder of images, which may have subfolders;
            - a `.txt` file with one path per line;
            - a `.csv` file with a column `path`, `file`, `filename` or
              `image`;
            - TFRecords that `data.open_dataset` reads, a file or a folder;
            - Parquet files with a column `bytes` or `path`, a file or a
              folder.
        output: Path or URL of the folder to write.
        model: As for `load_classifier`; for features, as for `open_model`.
        features: `"float16"` or `"float32"`, to write the inputs of the
            classifier instead of classes.
        top: Integer, the number of best classes to write.
        batch_size: Integer, images per batch.
        image_size: As for `load_classifier`.
        crop_fraction: As for `load_classifier`.
        orientation: As for `load_classifier`.
        workers: Integer, the number of processes, which share the cores.
        gpus: Number of GPUs per worker, which may be a fraction.
        address: Address of a Ray cluster, or `"auto"`. All its machines must
            have this package and see the paths. Defaults to this machine.

    Returns:
        A `MapReport`.

    Raises:
        FileNotFoundError: If there is no image or no such model.
        ImportError: If Ray is not installed.
        OSError: If the output can't be written. Complete files are kept.
        RuntimeError: If the cluster fails.
        ValueError: If an argument is out of range, the model can't be read, or
            the output has another source, model or settings.
        FileExistsError: If the output is a file, or a folder of something else.

    Example:

    ```python
    convmixer_tf.inference.map_images("photos", "predictions", workers=2)
    table = pyarrow.parquet.read_table("predictions")
    ```
    """
    source, output = os.fspath(source), os.fspath(output)
    model = os.fspath(model)
    for name, value in (
        ("top", top),
        ("batch_size", batch_size),
        ("workers", workers),
    ):
        check_positive_integer(name, value)
    check_crop_fraction(crop_fraction)
    check_orientation(orientation)
    if features not in (None, *FEATURES):
        raise ValueError(
            f"Argument `features` must be one of {', '.join(FEATURES)}, or "
            f"None. Received: features={features!r}"
        )
    settings = Settings(
        features, top, batch_size, image_size, crop_fraction, orientation
    )
    _import_ray()
    progress.note("listing %s", source)
    digest, counts, packed = _divide(source)
    manifest = {
        "source": digest,
        "images": sum(counts),
        "model": _digest_of_model(model),
        **dataclasses.asdict(settings),
    }
    if not is_remote(output):
        output = os.path.abspath(output)
    if os.path.exists(model):  # Workers have other working directories.
        model = os.path.abspath(model)
    is_new = claim(output, manifest)
    done = set(names_in(output))
    missing = [i for i in range(len(counts)) if file_of(i) not in done]
    todo = [{"number": i, "part": packed[i]} for i in missing]
    count = sum(counts[i] for i in missing)
    try:
        if todo:
            with _cluster(address, workers) as cpus:
                arguments = (model, output, settings, cpus)
                answers = _answers(todo, arguments, workers, gpus)
                # Ray Data must end before the cluster, or it starts another.
                with contextlib.closing(answers):
                    _compute(answers, count)
    except KeyboardInterrupt:
        done = set(names_in(output))
        written = sum(n for i, n in enumerate(counts) if file_of(i) in done)
        _LOG.warning(
            "%d of %d images are written. Run the same command to continue.",
            written,
            sum(counts),
        )
        raise
    finally:
        names = names_in(output)
        if is_new and not any(x.endswith(".parquet") for x in names):
            delete(output, MANIFEST)  # The model may be the cause.
    for name in names:  # Temporary files of workers that were killed.
        if name.startswith(".") and name.endswith(".parquet"):
            delete(output, name)
    return MapReport(sum(counts), count, count_errors(output))


def _import_ray():
    try:
        import ray.data
    except ImportError as error:
        raise ImportError(
            "Bulk prediction needs Ray Data. Install the extra: "
            'pip install "convmixer_tf[ray]"'
        ) from error
    return ray


def _divide(source):
    """Lists a source's images and packs them for workers.

    Returns:
        A tuple: a string that identifies the list, the number of images of each
        part, and the compressed parts, with about ten bytes per path.
    """
    found = find_parts(source)
    size = _part_size(sum(part.count for part in found))
    digest, counts, packed = hashlib.sha256(), [], []
    for part in (part for whole in found for part in whole.divided(size)):
        text = json.dumps(dataclasses.astuple(part)).encode()
        digest.update(text)
        counts.append(part.count)
        packed.append(zlib.compress(text))
    return digest.hexdigest(), counts, packed


def _part_size(total):
    """Chooses the number of images per file from the total number."""
    return min(1024, 64 * max(1, total // 1024))


def _digest_of_model(name):
    """Identifies a model by its content, or a published one by its name."""
    if name in VARIANTS:
        return name
    path = fetch_from_hub(name) if name.startswith(HUB) else find_model(name)
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no model `{name}`. Pass a path, {HUB}USER/REPOSITORY, "
            f"or one of {', '.join(VARIANTS)}."
        )
    files = sorted(x for x in path.rglob("*") if x.is_file()) or [path]
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            digest.update(str(file.relative_to(path)).encode())
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


@contextlib.contextmanager
def _cluster(address, workers):
    """Starts Ray on this machine, or connects to a cluster.

    Yields:
        Integer, the number of cores per worker.
    """
    # By default, Ray sends usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _import_ray()
    is_ours = not ray.is_initialized()
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if is_ours:
        progress.note("starting Ray")
        here = {
            "num_cpus": max(available_cores(), workers),
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
            # By default, Ray runs workers at low priority.
            "_system_config": {"worker_niceness": 0},
        }
        try:
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level="error",
                **({} if address else here),
            )
        except ConnectionError as error:
            raise ConnectionError(
                f"There is no Ray cluster at {address!r}: {error}"
            ) from error
    try:
        nodes = [
            int(node["Resources"].get("CPU", 0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        if sum(nodes) < workers:
            raise ValueError(
                f"The cluster has {sum(nodes)} cores, and each worker needs "
                f"one. Received: workers={workers}"
            )
        yield max(
            cores
            for cores in range(1, max(nodes) + 1)
            if sum(node // cores for node in nodes) >= workers
        )
    finally:
        if is_ours:
            ray.shutdown()


def _compute(answers, count):
    """Waits for the workers' answers and reports progress."""
    done, start, first = 0, None, 0
    said = time.monotonic()
    for answer in answers:
        if answer["error"]:
            raise ERRORS[answer["kind"]](answer["error"])
        done += answer["images"]
        now = time.monotonic()
        line = ("%d of %d images", done, count)
        if start is None:  # The first answer includes building the graph.
            start, first = now, done
        else:
            speed = (done - first) / max(now - start, 1e-9)
            line = ("%d of %d images, %.0f images/s", done, count, speed)
        progress.note(*line)
        if now > said + progress.FIRST:
            _LOG.info(*line)
            progress.touch()
            said = now


def _answers(todo, arguments, workers, gpus):
    """Computes parts with Ray's workers and yields their answers."""
    ray = _import_ray()
    ray.data.DataContext.get_current().enable_progress_bars = False
    # A block is one part. Its result is a few numbers.
    rows = ray.data.from_items(todo, override_num_blocks=len(todo)).map(
        Worker,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(todo))),
        num_cpus=arguments[-1],
        num_gpus=gpus,
    )
    progress.note("starting %d workers", workers)
    try:
        yield from rows.iter_rows()
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"The Ray cluster failed: {error}. Complete files are kept. Run "
            "the same command to compute the rest."
        ) from error
