"""Fetching published weights and other files from the Hugging Face hub."""

import hashlib
import os
import re
from collections.abc import Sequence

from convmixer_tf.weights.packaged import find_packaged
from convmixer_tf.weights.published import PUBLISHED_WEIGHTS
from convmixer_tf.weights.web import fetch_file

HUB = "hf://"
MODEL_FILE, WEIGHTS_FILE = "model.keras", "model.safetensors"
CONFIG_FILE = "config.json"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?")


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
    advice = " Or download that file elsewhere and pass its path as `weights`."
    return _download(
        f"the published weights of {name}",
        published.repository,
        published.filename,
        None,
        advice,
    )


def fetch_from_hub(
    name: str, files: Sequence[str] = (MODEL_FILE, WEIGHTS_FILE)
) -> str:
    """Fetches a file of any repository on the hub, or finds it cached.

    Cache, offline mode and verification are those of `fetch_weights`.

    Args:
        name: `"hf://USER/REPOSITORY"`, to which `@REVISION`, a commit, tag or
            branch, and `/FILE` may be added. A commit pins the content.
            Without revision, it is that of the branch `main`.
        files: Names of the files to look for if `name` names none. The first
            that is there is fetched.

    Returns:
        Path of the file in the cache.

    Raises:
        OSError: If the file is neither in the cache nor can be fetched, or its
            content is damaged.
        ValueError: If `name` has another form.

    Example:

    ```python
    path = fetch_from_hub("hf://timm/convmixer_768_32.in1k")
    ```
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            "The name of a model on the hub must be hf://USER/REPOSITORY, "
            "hf://USER/REPOSITORY@REVISION or one of these with /FILE. "
            f"Received: {name!r}"
        )
    repository, revision, file = found.groups()
    files = [file] if file else list(files)
    for candidate in files[:-1]:
        try:
            return _download(name, repository, candidate, revision)
        except FileNotFoundError:
            continue  # It is neither cached nor on the hub.
    return _download(name, repository, files[-1], revision)


def fetched(weights):
    """Fetches weights whose name begins with `hf://`; returns others."""
    if isinstance(weights, str) and weights.startswith(HUB):
        return fetch_from_hub(weights, (WEIGHTS_FILE, MODEL_FILE))
    return weights


def _download(what, repository, filename, revision, advice=""):
    import huggingface_hub  # Not above: importing it takes time.

    try:
        path = huggingface_hub.hf_hub_download(
            repository, filename, revision=revision
        )
    except Exception as error:
        not_found = isinstance(error, huggingface_hub.errors.EntryNotFoundError)
        # The sentence has all that the 60 lines of the cause would say.
        raise (FileNotFoundError if not_found else OSError)(
            f"Cannot fetch {what} (file `{filename}` of the hub repository "
            f"`{repository}`): {hub_error(error)}{advice}"
        ) from None
    _verify(path, what, repository)
    return path


def hub_error(error, action="download"):
    """Says in one or two sentences why the hub failed, and what to do."""
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
        f"the {action} failed ({type(error).__name__}: {summary}). "
        "Nothing was kept; try again."
    )


def _verify(path, what, repository):
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
            f"The cached file of {what} (hub repository `{repository}`) "
            f"is damaged: the SHA-256 of the content is {actual}, expected "
            f"{expected}. Nothing was loaded. Delete "
            f"`{os.path.realpath(path)}` and try again."
        )
