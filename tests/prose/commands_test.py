"""Tests that documented commands are valid and covered by tests."""

import argparse
import ast
import configparser
import re

import pytest
from absl import flags
from absl.testing import flagsaver

from convmixer_tf import predict
from tests.helpers import ROOT
from tests.prose import documents
from tests.prose.coverage import COMMANDS
from tests.prose.coverage import Elsewhere
from tests.prose.coverage import InCI
from tests.prose.coverage import Run

FOUND = documents.commands()
PREPARES = re.compile(
    r"(\w+=\S+ )?(pytest|(pip|apt-get) install|bash \.ci|python3\.11 -m venv)\b"
)


def _scripts():
    """Collects each script's flags in documents, tests and docstrings."""
    lines = []
    for line in FOUND:
        how = COMMANDS.get(line)
        more = how.more if isinstance(how, Run) else ""
        lines.append(f"{line} {more}")
    for folder in ("recipes", "export"):
        for path in (ROOT / folder).glob("*.py"):
            lines += documents.commands_on_top(path)
    found = {}
    for line in lines:
        for words in documents.parts(line):
            if script := documents.script_of(words):
                found.setdefault(script[0], []).append(script[1])
    return found


SCRIPTS = _scripts()


def test_every_block_is_one_that_is_run():
    for name in documents.DOCUMENTS:
        text = documents.read(name)
        assert text.count("\n```") == 2 * len(documents.blocks(name))
        for block in documents.blocks(name):
            # Other blocks are only shown, not run.
            languages = ("python", "shell", "json", "yaml", "text", "mermaid")
            assert block.language in languages, block.place
        # Indented blocks would not be checked.
        assert not re.search(r"\n\n    \S", text)


def test_every_command_is_covered():
    """A new command needs a line in coverage.py."""
    # Commands that only install or run tests are checked below.
    found = {line for line in FOUND if not PREPARES.match(line)}
    missing = [f"{FOUND[line]}: {line}" for line in found - set(COMMANDS)]
    assert not missing
    assert not set(COMMANDS) - found, "no document has these any more"


def functions(source):
    body = ast.parse(source).body
    return {x.name for x in body if isinstance(x, ast.FunctionDef)}


def test_tests_that_run_commands_are_there():
    """The test exists and runs the same script."""
    for line, where in COMMANDS.items():
        if not isinstance(where, Elsewhere):
            continue
        source = documents.read(where.file)
        assert where.name in functions(source), line
        if where.file != "tests/prose/running_test.py":
            for script in re.findall(r"(\w+)\.(?:py|ipynb)\b", line):
                assert script in source, line


def test_what_the_ci_runs():
    """It uses whole lines of the README."""
    words = re.findall(r"readme_command '(.+?)'", documents.read(".ci/run"))
    lines = documents.read("README.md").splitlines()
    lines = [documents.plain(line) for line in lines]
    taken = {next(line for line in lines if x in line) for x in words}
    assert len(taken) == len(words) >= 4
    assert taken <= set(FOUND)
    in_ci = {x for x, where in COMMANDS.items() if isinstance(where, InCI)}
    assert in_ci == {line for line in taken if not PREPARES.match(line)}


def test_what_the_first_hour_waits_for_is_logged():
    script = documents.read("recipes/first_hour.sh")
    found = re.findall(r'grep (?:-q )?"(.+?)" "\$log"', script)
    assert len(found) == 3
    training = ROOT / "convmixer_tf" / "training"
    source = "".join(x.read_text() for x in training.glob("*.py"))
    for message in found:
        assert message.replace("1", "%d") in source


def test_tests_that_the_ci_names_are_there():
    words = re.findall(r"\btests/\S+", documents.read(".ci/run"))
    assert len(words) >= 8
    for word in words:
        path, _, name = word.partition("::")
        head, *middle = re.split("[{}]", path)
        for part in middle[0].split(",") if middle else [""]:
            path = head + part + "".join(middle[1:])
            assert (ROOT / path).exists(), path
        assert not name or name in functions(documents.read(path)), word


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_scripts_take_their_flags(load_script, path):
    """Checks names, types, choices and required flags; runs nothing."""
    with load_script(path):
        for arguments in SCRIPTS[path]:
            with flagsaver.flagsaver():
                flags.FLAGS([path, *arguments])


def test_predict_takes_its_flags(monkeypatch):
    def fail(parser, message):
        raise ValueError(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", fail)
    lines = [
        words[2:]
        for line in FOUND
        for words in documents.parts(line)
        if words[:2] == ["convmixer", "predict"]
    ]
    assert len(lines) >= 6
    for arguments in lines:
        predict.parse(arguments)


def test_tests_that_are_named_are_there():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    markers = re.findall(r"^(\w+):", config["tool:pytest"]["markers"], re.M)
    lines = [
        words[words.index("pytest") + 1 :]
        for line in FOUND
        for words in documents.parts(line)
        if "pytest" in words
    ]
    assert len(lines) >= 8
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", default="")
    parser.add_argument("-n", type=int)
    parser.add_argument("--dist")
    parser.add_argument("paths", nargs="*")
    for words in lines:
        found = parser.parse_args(words)
        assert set(found.m.split()) - {"and", "not", "or"} <= set(markers)
        for path in found.paths:
            assert (ROOT / path).exists(), path


def test_extras_that_are_named_are_there():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = [re.findall(r'"\.\[(.+?)\]"', line) for line in FOUND]
    extras = {x for found in named for text in found for x in text.split(",")}
    assert extras
    assert extras <= set(config["options.extras_require"])
