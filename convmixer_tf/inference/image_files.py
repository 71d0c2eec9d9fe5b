"""Which files a user means."""

import pathlib
import urllib.parse
import urllib.request

from convmixer_tf.data.datasets import EXTENSIONS
from convmixer_tf.data.datasets import walk_images


def find_images(names, skipped=None):
    """Finds image files.

    Args:
        names: Paths or `file://` URLs of files, which may have any suffix and
            need not exist, and of folders, which are searched with all their
            folders for images. What is hidden is left out.
        skipped: List, to which the paths of what is in these folders and has
            another suffix are added.

    Returns:
        List of paths, as strings: each once, in the order of `names`, of a
        folder sorted.

    Raises:
        FileNotFoundError: If there is no image at all.
        ValueError: If a URL is of another kind.
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
            "Of URLs, only those of local files are read, file:///...; fetch "
            f"others first. Received: {name}"
        )
    return pathlib.Path(urllib.request.url2pathname(url.path))
