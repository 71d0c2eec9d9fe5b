"""Downloads published weights from a URL and checks their SHA-256."""

import contextlib
import hashlib
import os
import sys
import urllib.error
import urllib.parse

from convmixer_tf.files import replaced


def fetch_file(name, files):
    """Downloads a weights file, or finds it in the cache.

    `keras.utils.get_file` downloads the file and uses the proxy of the
    environment. The cache is the folder `models` of `KERAS_HOME`, by default
    `~/.keras`. A file gets its name in the cache only when it is complete. Each
    call checks its SHA-256.

    Args:
        name: Name of the weights, for the name of the cached file and for
            messages.
        files: List of equivalent `PublishedFile`. The first one in the cache is
            used; if there is none, the first of the list is downloaded.

    Returns:
        Path of the file in the cache.

    Raises:
        OSError: If the file is not in the cache and can't be downloaded.
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
    import keras  # Imported here because it is slow.

    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Keras writes its progress to stdout, which is for a command's output.
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
    except Exception as error:  # Keras raises a bare Exception.
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
