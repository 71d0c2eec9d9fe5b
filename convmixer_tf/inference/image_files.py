"""Finds the image files that a user names."""

import pathlib
import urllib.parse
import urllib.request

from convmixer_tf.data.datasets import EXTENSIONS
from convmixer_tf.data.datasets import walk_images


def find_images(names, skipped=None):
    """Finds image files.

    Args:
        names: Paths or `file://` URLs of files and folders. Files may have any
            suffix and need not exist. Folders are searched recursively for
            images, without hidden files.
        skipped: List, to which the paths of files in these folders with other
            suffixes are added.

    Returns:
        List of paths, as strings: each once, in the order of `names`, sorted
        within a folder.

    Raises:
        FileNotFoundError: If there is no image at all.
        ValueError: If a URL is not a `file://` URL.
    """
    names = list(names)
    paths, others = [], []
    for name in names:
        path = _local_path(name)
        if path.is_dir():
            images, rest = walk_images(path)
            paths += images
            others += rest
        else:
            paths.append(path)
    paths, others = list(map(str, paths)), set(map(str, others))
    if skipped is not None:
        skipped += sorted(others - set(paths))
    if not paths:
        raise FileNotFoundError(
            f"There are no images in {', '.join(map(str, names)) or 'nothing'}."
            f" Expected files *{{{','.join(EXTENSIONS)}}}."
        )
    return list(dict.fromkeys(paths))


def _local_path(name):
    if "://" not in str(name):
        return pathlib.Path(name)
    url = urllib.parse.urlsplit(str(name))
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise ValueError(
            "A URL must be of a local file, file:///... Download other files "
            f"first. Received: {name}"
        )
    return pathlib.Path(urllib.request.url2pathname(url.path))
