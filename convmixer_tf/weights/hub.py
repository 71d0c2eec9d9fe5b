"""Downloads published weights and other files from the Hugging Face hub."""

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
    """Downloads published weights, or finds them in a cache.

    Files on the hub are downloaded by `huggingface_hub`, with its cache
    (`HF_HOME`, `HF_HUB_CACHE`), offline mode (`HF_HUB_OFFLINE`), mirrors
    (`HF_ENDPOINT`), tokens and progress bars. The cache names a file by the
    SHA-256 of its content, and each call compares the content with that name. A
    cache on a file system without symbolic links doesn't keep the name, so this
    check is skipped there.

    Weights in this package are compared with the SHA-256 that is stored beside
    them. Weights elsewhere on the web are downloaded by `keras.utils.get_file`
    into the folder `models` of `KERAS_HOME`, by default `~/.keras`. Each call
    compares them with the SHA-256 in `PUBLISHED_WEIGHTS`.

    Args:
        name: One of the names in `PUBLISHED_WEIGHTS`.
        include_top: Whether the classifier is needed. If not, a smaller file
            may be downloaded.

    Returns:
        Path of a file that `read_weights` reads, in a cache or in this
        package.

    Raises:
        KeyError: If there are no published weights of that name.
        OSError: If the file is not in this package or a cache and can't be
            downloaded, or if its content is damaged.

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
    """Downloads a file of any hub repository, or finds it in the cache.

    The cache, the offline mode and the verification are as in `fetch_weights`.

    Args:
        name: `"hf://USER/REPOSITORY"`. `@REVISION` (a commit, tag or branch)
            and `/FILE` may follow. A commit pins the content. The default
            revision is the branch `main`.
        files: Names of the files to look for if `name` has no file. The first
            that exists is downloaded.

    Returns:
        Path of the file in the cache.

    Raises:
        OSError: If the file is not in the cache and can't be downloaded, or if
            its content is damaged.
        ValueError: If `name` is malformed.

    Example:

    ```python
    path = fetch_from_hub("hf://timm/convmixer_768_32.in1k")
    ```
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            "The name of a model on the hub must be hf://USER/REPOSITORY or "
            "hf://USER/REPOSITORY@REVISION, optionally with /FILE. "
            f"Received: {name!r}"
        )
    repository, revision, file = found.groups()
    files = [file] if file else list(files)
    for candidate in files[:-1]:
        try:
            return _download(name, repository, candidate, revision)
        except FileNotFoundError:
            continue  # It is neither in the cache nor on the hub.
    return _download(name, repository, files[-1], revision)


def fetched(weights):
    """Downloads weights whose name starts with `hf://`; returns others."""
    if isinstance(weights, str) and weights.startswith(HUB):
        return fetch_from_hub(weights, (WEIGHTS_FILE, MODEL_FILE))
    return weights


def _download(what, repository, filename, revision, advice=""):
    import huggingface_hub  # Imported here because it is slow.

    try:
        path = huggingface_hub.hf_hub_download(
            repository, filename, revision=revision
        )
    except Exception as error:
        not_found = isinstance(error, huggingface_hub.errors.EntryNotFoundError)
        # The message has all the information of the cause's 60 lines.
        raise (FileNotFoundError if not_found else OSError)(
            f"Cannot fetch {what} (file `{filename}` of the hub repository "
            f"`{repository}`): {hub_error(error)}{advice}"
        ) from None
    _verify(path, what, repository)
    return path


def hub_error(error, action="download"):
    """Explains in one or two sentences why the hub failed and what to do."""
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
                f"the hub at {endpoint} reports that the file does not exist "
                f"or that you may not read it (HTTP status {status}). Check "
                "HF_ENDPOINT and HF_TOKEN."
            )
    summary = str(error).strip().partition("\n")[0]
    return (
        f"the {action} failed ({type(error).__name__}: {summary}). No partial "
        "file was kept. Try again."
    )


def _verify(path, what, repository):
    """Compares a cached file's content with the hash in its name."""
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
