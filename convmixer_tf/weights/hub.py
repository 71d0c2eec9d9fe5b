"""Fetching published weights, most of them from the Hugging Face hub."""

import hashlib
import os
import re

from convmixer_tf.weights.packaged import find_packaged
from convmixer_tf.weights.published import PUBLISHED_WEIGHTS
from convmixer_tf.weights.web import fetch_file


def fetch_weights(name: str, include_top: bool = True) -> str:
    """Fetches published weights, or finds them cached.

    `huggingface_hub` does the work, so its cache (`HF_HOME`, `HF_HUB_CACHE`),
    offline mode (`HF_HUB_OFFLINE`), mirrors (`HF_ENDPOINT`), tokens and
    progress bars behave as everywhere else. The hub names the file in the
    cache by the SHA-256 of its content. The content is compared with that
    name on each call; where the file system has no symbolic links the cache
    doesn't keep the name and the comparison is left out. Weights that are part
    of this package are compared with the SHA-256 beside them. Weights that are
    elsewhere on the web are fetched by `keras.utils.get_file` into the folder
    `models` of `KERAS_HOME`, by default `~/.keras`, and compared with the
    SHA-256 in `PUBLISHED_WEIGHTS` on each call.

    Args:
        name: One of the names in `PUBLISHED_WEIGHTS`.
        include_top: Whether the classifier is needed. If not, a smaller file
            may be fetched.

    Returns:
        Path of a file that `read_weights` reads, in a cache or in this
        package.

    Raises:
        KeyError: If there are no published weights of that name.
        OSError: If the file is neither in this package nor in the cache nor
            can be fetched, or its content is damaged.

    Example:

    ```python
    path = fetch_weights("convmixer_768_32")
    ```
    """
    published = PUBLISHED_WEIGHTS[name]
    if published.file is not None:
        files = [published.file]
        if published.file_without_top is not None and not include_top:
            files.insert(0, published.file_without_top)
        return fetch_file(name, files)
    if published.repository is None:
        return find_packaged(name)
    import huggingface_hub  # Not above: importing it takes time.

    try:
        path = huggingface_hub.hf_hub_download(
            published.repository, published.filename
        )
    except Exception as error:
        raise OSError(
            f"Cannot fetch the published weights of {name} (file "
            f"`{published.filename}` of the hub repository "
            f"`{published.repository}`): {_reason(error)} Or download that "
            "file elsewhere and pass its path as `weights`."
        ) from None  # The sentence has all that its 60 lines would.
    _verify(path, name, published.repository)
    return path


def _reason(error):
    """Says in one or two sentences why fetching failed, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors

    endpoint = constants.ENDPOINT
    if isinstance(error, errors.LocalEntryNotFoundError):
        if isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            return (
                "the file is not in the cache and offline mode is on. Unset "
                "HF_HUB_OFFLINE, or copy the cache from another machine."
            )
        return (
            f"the file is not in the cache and the hub at {endpoint} cannot "
            "be reached. Check the network, the proxy and HF_ENDPOINT."
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403, 404):
            return (
                f"the hub at {endpoint} says that it doesn't exist or that "
                f"you may not read it (HTTP status {status}). Check "
                "HF_ENDPOINT and HF_TOKEN."
            )
    summary = str(error).strip().partition("\n")[0]
    return (
        f"the download failed ({type(error).__name__}: {summary}). "
        "Nothing was kept; try again."
    )


def _verify(path, name, repository):
    """Compares the content of a cached file with the hash that names it."""
    if not os.path.islink(path):
        return
    expected = os.path.basename(os.readlink(path))
    if re.fullmatch("[0-9a-f]{64}", expected) is None:
        return
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise OSError(
            f"The cached weights of {name} (hub repository `{repository}`) "
            f"are damaged: the SHA-256 of the content is {actual}, expected "
            f"{expected}. Nothing was loaded. Delete "
            f"`{os.path.realpath(path)}` and try again."
        )
