"""Which files a user means."""

import pathlib
import urllib.parse
import urllib.request

from convmixer_tf.data.datasets import EXTENSIONS


def find_images(names):
    """Finds image files.

    Args:
        names: Paths or `file://` URLs of files, which may have any suffix,
            and of folders, which are searched with all their folders for
            images. What is hidden is left out.

    Returns:
        List of paths, as strings: each once, in the order of `names`, of a
        folder sorted.

    Raises:
        FileNotFoundError: If there is no such file or folder, or if there is
            no image at all.
        ValueError: If a URL is of another kind.
    """
    names = list(names)
    paths = [path for name in names for path in _expand(_local_path(name))]
    if not paths:
        raise FileNotFoundError(
            f"There are no images in {', '.join(map(str, names)) or 'nothing'}."
            f" Expected files *{{{','.join(EXTENSIONS)}}}."
        )
    return list(dict.fromkeys(map(str, paths)))


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


def _expand(path):
    if path.is_dir():
        found = (p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
        return sorted(p for p in found if _is_shown(p.relative_to(path)))
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder `{path}`.")
    return [path]


def _is_shown(path):
    return not any(part.startswith(".") for part in path.parts)
