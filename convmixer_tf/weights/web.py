"""Fetching published weights from an address on the web, by their SHA-256."""

import contextlib
import hashlib
import os
import sys
import urllib.error
import urllib.parse

from convmixer_tf.files import replaced


def fetch_file(name, files):
    """Fetches a file of weights, or finds it cached.

    `keras.utils.get_file` does the work, so a proxy is that of the
    environment. The cache is the folder `models` of `KERAS_HOME`, by default
    `~/.keras`. A file is in the cache under its own name only when it is whole,
    and its SHA-256 is compared on each call.

    Args:
        name: Name of the weights, for the name of the cached file and for
            messages.
        files: List of `PublishedFile`, any of which will do. The first that
            is cached is used; if none is, the first is fetched.

    Returns:
        Path of the file in the cache.

    Raises:
        OSError: If the file is neither in the cache nor can be fetched.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    folder = os.path.join(os.path.expanduser(home), "models")
    paths = [os.path.join(folder, _filename(name, file)) for file in files]
    for path, file in zip(paths, files, strict=True):
        if os.path.isfile(path) and _sha256(path) == file.sha256:
            return path
    _download(name, files[0], paths[0])
    return paths[0]


def _download(name, file, path):
    import keras  # Not above: importing it takes time.

    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Keras writes its progress where the output of a command belongs.
        with (
            contextlib.redirect_stdout(sys.stderr),
            replaced(path) as unfinished,
        ):
            keras.utils.get_file(
                os.path.basename(unfinished),
                file.url,
                file_hash=file.sha256,
                cache_subdir=os.path.abspath(os.path.dirname(path)),
            )
    except Exception as error:  # Keras raises bare ones.
        if isinstance(error.__context__, urllib.error.HTTPError):
            error.__context__.close()
        text = str(error).strip() or type(error).__name__
        reason = text.partition("\n")[0].removeprefix(
            f"URL fetch failure on {file.url}: "
        )
        raise OSError(
            f"Cannot fetch the published weights of {name} from {file.url}: "
            f"the download failed ({reason.rstrip('.')}). Nothing was kept. "
            "Check the network and the proxy (HTTPS_PROXY), and that "
            f"`{os.path.dirname(path)}` can be written (KERAS_HOME). Or "
            "download that file elsewhere and pass its path as `weights`."
        ) from None


def _filename(name, file):
    address = urllib.parse.urlsplit(file.url).path
    return f"{name}_{os.path.basename(address)}"


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
