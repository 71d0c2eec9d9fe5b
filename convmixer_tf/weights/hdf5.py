"""Reads HDF5 files without following links to other files."""

import h5py


def child(group, key):
    """Returns a member of a group. It must be stored in the same file."""
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"`{group.name}/{key}` is a link.")
    return group[key]


def read_array(dataset):
    """Reads a plain array that is stored in the same file."""
    stored = (
        isinstance(dataset, h5py.Dataset)
        and not dataset.is_virtual
        and dataset.external is None
        and dataset.nbytes == dataset.id.get_storage_size()
    )
    if not stored:
        raise ValueError(f"`{dataset.name}` is not stored as a plain array.")
    return dataset[()]
