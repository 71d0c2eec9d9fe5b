"""Tests that the diagram of subpackages matches the imports."""

import re

from tests.imports_test import MODULES
from tests.imports_test import imported_module
from tests.imports_test import imports_of
from tests.prose import documents

PAGE = "convmixer_tf/README.md"


def reachable(graph, start):
    found, left = set(), [start]
    while left:
        new = graph.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def test_arrows_are_the_imports():
    (picture,) = (b for b in documents.blocks(PAGE) if b.language == "mermaid")
    drawn = set(re.findall(r"^  (\w+) --> (\w+)$", picture.text, re.M))
    rooms = {name for arrow in drawn for name in arrow}
    graph = {room: set() for room in rooms}
    for module, path in MODULES.items():
        room = module.split(".")[1] if "." in module else ""
        if room in rooms:
            names = [imported_module(*x) for x in imports_of(path)]
            others = {x.split(".")[1] for x in names if "." in x}
            graph[room] |= others & rooms - {room}
    # An arrow is omitted if there is another path.
    needed = {
        (room, other)
        for room, others in graph.items()
        for other in others
        if not any(other in reachable(graph, x) for x in others - {other})
    }
    assert drawn == needed
    folders = {
        module.split(".")[1]
        for module, path in MODULES.items()
        if path.name == "__init__.py" and module.count(".") == 1
    }
    assert folders <= rooms


def test_every_subpackage_is_described():
    (picture,) = (b for b in documents.blocks(PAGE) if b.language == "mermaid")
    for room in set(re.findall(r"\w+", picture.text)) - {"graph", "TD"}:
        assert f"`{room}`" in documents.read(PAGE)
