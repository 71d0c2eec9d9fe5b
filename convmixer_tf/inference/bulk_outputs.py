"""The output folder of a bulk prediction, on a disk or in a bucket."""

import contextlib
import json
import os
import uuid

from convmixer_tf.inference.bulk_inputs import locate

# Readers of the folder as one table skip names that begin with `_`.
MANIFEST = "_manifest.json"


def file_of(number):
    """Returns the file name of a part."""
    return f"part-{number:06d}.parquet"


def claim(output, manifest):
    """Creates a folder for these results, or checks that it is for them.

    Returns:
        Boolean, whether the folder is new or was empty.
    """
    filesystem, folder = locate(output)
    if filesystem.get_file_info(folder).is_file:
        raise FileExistsError(f"`{output}` is a file. Name a folder.")
    names = names_in(output)
    if MANIFEST in names:
        with filesystem.open_input_stream(f"{folder}/{MANIFEST}") as file:
            there = json.loads(file.read())
        other = [x for x in manifest if there.get(x) != manifest[x]]
        if other:
            # A list of images is known by its hash.
            shown = [x for x in other if x != "source" or other == ["source"]]
            raise ValueError(
                f"`{output}` has the results of another {' and '.join(other)}. "
                "Write elsewhere, or remove it. "
                + ", ".join(
                    f"`{x}` there: {there.get(x)!r}, now: {manifest[x]!r}"
                    for x in shown
                )
            )
        return False
    if not all(name.startswith(".") for name in names):
        raise FileExistsError(
            f"`{output}` exists and has no `{MANIFEST}` in it. Remove it, or "
            "write elsewhere."
        )
    text = json.dumps(manifest, indent=1) + "\n"
    filesystem.create_dir(folder, recursive=True)
    write(output, MANIFEST, text.encode())
    return True


def names_in(output):
    """Lists the names in the folder; none if it does not exist."""
    from pyarrow import fs

    filesystem, folder = locate(output)
    selector = fs.FileSelector(folder, allow_not_found=True)
    return [x.base_name for x in filesystem.get_file_info(selector)]


def count_errors(output):
    """Counts the rows with an error."""
    from pyarrow import dataset

    filesystem, folder = locate(output)
    rows = dataset.dataset(folder, filesystem=filesystem, format="parquet")
    return rows.count_rows(filter=dataset.field("error").is_valid())


def delete(output, name):
    """Deletes a file of the folder."""
    filesystem, folder = locate(output)
    filesystem.delete_file(f"{folder}/{name}")


def write(output, name, content):
    """Writes a file. It appears under its name when it is complete."""
    filesystem, folder = locate(output)
    unfinished = f"{folder}/.{uuid.uuid4().hex}.{name}"
    try:
        with filesystem.open_output_stream(unfinished) as file:
            file.write(content)
        if filesystem.type_name == "local":
            with open(unfinished, "rb") as file:
                os.fsync(file.fileno())
        filesystem.move(unfinished, f"{folder}/{name}")
    except OSError as error:
        with contextlib.suppress(OSError):
            filesystem.delete_file(unfinished)
        raise OSError(
            f"Can't write to `{output}`: {error}. Complete files are kept. "
            "To resume, make room and run the same command."
        ) from error
