"""Tests finding images from files, folders and URLs."""

import pytest

from convmixer_tf.inference.image_files import find_images


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.png",
        ".hidden/c.png",
        "deeper/and deeper/d.jpeg",
        "odd.webp",
        "scan.tiff",
        "README",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folders_and_files(folder):
    skipped = []
    found = find_images(
        [folder / "scan.tiff", folder, folder / "b.jpg"], skipped
    )
    names = ["scan.tiff", "a.PNG", "b.jpg", "deeper/and deeper/d.jpeg"]
    names.append("odd.webp")
    assert found == [str(folder / name) for name in names]
    # This file is named explicitly, so it is not skipped.
    names = ["README", "notes.txt"]
    assert skipped == [str(folder / name) for name in names]


def test_a_hidden_folder_that_is_named(folder):
    found = find_images([folder / ".hidden"])
    assert found == [str(folder / ".hidden" / "c.png")]


@pytest.mark.parametrize("host", ["", "localhost"])
def test_urls_of_files(folder, host):
    url = folder.as_uri().replace("file://", f"file://{host}")
    found = find_images([f"{url}/deeper/and%20deeper"])
    assert found == [str(folder / "deeper" / "and deeper" / "d.jpeg")]


@pytest.mark.parametrize(
    "url", ["https://example.org/cat.jpg", "file://example.org/cat.jpg"]
)
def test_other_urls(url):
    with pytest.raises(
        ValueError, match=f"Download other files first. Rec.*: {url}"
    ):
        find_images([url])


def test_what_is_not_there(folder):
    found = find_images([folder, folder / "gone"])
    assert found[-1] == str(folder / "gone")
    with pytest.raises(FileNotFoundError, match=r"There are no images in .*em"):
        find_images([folder / "empty"])
    with pytest.raises(FileNotFoundError, match="no images in nothing"):
        find_images([])
