"""Tests that the changelog has this version and names existing files."""

import re

import convmixer_tf
from tests.helpers import ROOT
from tests.prose.documents import read

CHANGELOG = read("CHANGELOG.md")


def test_this_version_comes_first():
    first = re.search(r"^## (.+)$", CHANGELOG, re.M)[1]
    assert convmixer_tf.__version__ in first


def test_what_it_names_is_there():
    names = re.findall(r"`([\w/.]+\.(?:py|ipynb))`", CHANGELOG)
    assert len(names) > 10
    for name in names:
        found = [ROOT / name, ROOT / "recipes" / name, ROOT / "export" / name]
        assert any(path.exists() for path in found), name
    for name in re.findall(r"`(ConvMixer\w*|PatchEmbed)`", CHANGELOG):
        assert name in convmixer_tf.__all__
