"""The API reference has every public name, and no link leads nowhere."""

import html.parser
import importlib
import inspect
import urllib.parse

import pytest


class Page(html.parser.HTMLParser):
    """Collects a page's anchors, links, and the text under each anchor."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.text = set(), set(), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.add(attributes["href"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def reference(load_script, tmp_path_factory):
    """The folder, and the public packages."""
    folder = tmp_path_factory.mktemp("api")
    with load_script("recipes/api_reference.py") as recipe:
        recipe.write_reference(folder)
        packages, _ = recipe.public_packages()
    return folder, packages


@pytest.fixture(scope="module")
def pages(reference):
    folder, _ = reference
    return {path: Page(path) for path in folder.rglob("*.html")}


def words(text):
    return " ".join(text.replace("`", "").replace("*", "").split())


def test_every_public_name_is_there_with_its_docstring(reference, pages):
    folder, packages = reference
    assert "convmixer_tf.export.qat" in packages
    for package in packages:
        page = pages[folder / f"{package.replace('.', '/')}.html"]
        module = importlib.import_module(package)
        for name in module.__all__:
            assert name in page.anchors, f"{package}.{name}"
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                first = inspect.getdoc(value).partition("\n\n")[0]
                assert words(first) in words(page.text), f"{package}.{name}"


def test_google_sections_are_read(reference, pages):
    folder, _ = reference
    text = pages[folder / "convmixer_tf" / "models.html"].text
    for title in ("Arguments:", "Returns:", "Raises:"):
        assert title in text
    assert "Args:" not in text


def test_only_packages_have_pages(reference, pages):
    folder, packages = reference
    names = {f"{package.replace('.', '/')}.html" for package in packages}
    found = {path.relative_to(folder).as_posix() for path in pages}
    assert found == names | {"index.html"}


def test_no_link_leads_nowhere(pages):
    count = 0
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urllib.parse.urldefrag(link)
            if target.startswith(("https://", "http://")):
                continue
            file = (path.parent / target).resolve() if target else path
            assert file in pages, f"{path}: {link}"
            assert not anchor or anchor in pages[file].anchors, (path, link)
            count += 1
    assert count > 300
