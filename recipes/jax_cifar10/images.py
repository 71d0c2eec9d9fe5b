"""Labelled images of 32 x 32 pixels: from files and archives into memory."""

import dataclasses
import io
import json
import os
import pathlib
import tarfile
import zipfile

import numpy as np
from PIL import Image

SIZE = 32  # pixels
SPLITS = ("train", "test")
EXTENSIONS = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        pixels: uint8 array of shape (images, 32, 32, 3).
        labels: int64 array of shape (images,).
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


def open_images(sources, folder):
    """Reads all images, or what an earlier call made of them.

    Args:
        sources: List of paths, which together hold `train/CLASS/*.png` (or
            .jpg) and `test/CLASS/*.png`: folders, .zip or .tar archives,
            these compressed or not.
        folder: Path of a folder to keep the decoded pixels in. It is made.

    Returns:
        Tuple of the names of the classes.

    Raises:
        FileNotFoundError: If a source is not there, or a split has no images.
        ValueError: If something else is in them.
    """
    folder = pathlib.Path(folder)
    facts = {"sources": [_stamp(source) for source in sources]}
    path = folder / "facts.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["sources"] == facts["sources"]:
            return tuple(known["class_names"])
    splits, class_names = read_images(sources)
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    for split, images in splits.items():
        np.save(folder / f"{split}_pixels.npy", images.pixels)
        np.save(folder / f"{split}_labels.npy", images.labels)
    facts["class_names"] = class_names
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(facts), encoding="utf-8")
    unfinished.replace(path)  # Last: now all are there.
    return tuple(class_names)


def load_images(folder, split):
    """Loads what `open_images` kept, sharing memory with other processes.

    Args:
        folder: Path of the folder.
        split: `"train"` or `"test"`.

    Returns:
        `Images`.
    """
    folder = pathlib.Path(folder)
    return Images(
        np.load(folder / f"{split}_pixels.npy", mmap_mode="r"),
        np.load(folder / f"{split}_labels.npy"),
    )


def read_images(sources):
    """Reads and decodes all images.

    Args:
        sources: As for `open_images`.

    Returns:
        Dictionary from `SPLITS` to `Images`, in the order of classes and
        names; and the list of the names of the classes.

    Raises:
        FileNotFoundError: As `open_images`.
        ValueError: As `open_images`.
    """
    found = {}
    for source in sources:
        for name, content in _files(pathlib.Path(source)):
            key = tuple(pathlib.PurePath(name).parts[-3:])
            if len(key) < 3 or key[0] not in SPLITS:
                continue
            if key in found:
                raise ValueError(f"--data has {'/'.join(key)} twice.")
            found[key] = _decode(content, name)
    class_names = sorted({class_name for _, class_name, _ in found})
    splits = {}
    for split in SPLITS:
        keys = sorted(key for key in found if key[0] == split)
        if not keys:
            raise FileNotFoundError(
                f"There are no images `{split}/CLASS/*{EXTENSIONS[-1]}` (or "
                f".jpg) in {', '.join(map(str, sources))}."
            )
        labels = [class_names.index(key[1]) for key in keys]
        pixels = np.stack([found[key] for key in keys])
        splits[split] = Images(pixels, np.array(labels))
    return splits, class_names


def _files(source):
    """Yields name and content of each image in a folder or an archive."""
    if source.is_dir():
        for path in source.glob("*/*/*"):
            if _is_image(path.name) and path.is_file():
                yield str(path), path.read_bytes()
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in filter(_is_image, archive.namelist()):
                yield name, archive.read(name)
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and _is_image(member.name):
                    yield member.name, archive.extractfile(member).read()
    else:
        raise ValueError(
            "--data must be of folders, .zip and .tar archives (or .tar.xz "
            f"and the like). Received: {source}"
        )


def _is_image(name):
    hidden = pathlib.PurePath(name).name.startswith(".")
    return name.lower().endswith(EXTENSIONS) and not hidden


def _decode(content, name):
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except OSError as error:
        raise ValueError(f"Can't read the image {name}. {error}") from error
    if image.mode.startswith(("I", "F")):  # Pillow would cut off, not scale.
        raise ValueError(
            "All images must have 8 bits a channel. "
            f"Received: {name} of mode {image.mode}"
        )
    if image.size != (SIZE, SIZE):
        raise ValueError(
            f"All images must be of {SIZE} x {SIZE} pixels. "
            f"Received: {name} of {image.width} x {image.height}"
        )
    return np.asarray(image.convert("RGB"))


def _stamp(source):
    """What tells whether a source is still the same."""
    path = pathlib.Path(source).absolute()
    if not path.exists():
        raise FileNotFoundError(f"There is no `{source}` (--data).")
    if path.is_dir():
        return [str(path), sum(1 for _ in path.glob("*/*/*"))]
    facts = os.stat(path)
    return [str(path), facts.st_size, facts.st_mtime_ns]
