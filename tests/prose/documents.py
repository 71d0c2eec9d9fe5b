"""Reads the code blocks and commands of the documents."""

import ast
import dataclasses
import re
import shlex

from tests.helpers import ROOT

SERVING = "export/serve/README.md"
DOCUMENTS = (
    "README.md",
    "BUILD.md",
    "convmixer_tf/README.md",
    "export/README.md",
    "export/results/README.md",
    "recipes/README.md",
    "recipes/results/README.md",
    "tests/README.md",
    "export/web/README.md",
    "export/android/README.md",
    SERVING,
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.M | re.S)
_SPAN = re.compile(r"`([^`\n]+)`")
_PROGRAMS = (
    "apt-get",
    "bash",
    "convmixer",
    "curl",
    "jupyter",
    "npm",
    "pip",
    "pytest",
    "python",
    "taskset",
)
_STARTS = re.compile(rf"(?:\w+=\S+ +)*(?:{'|'.join(_PROGRAMS)})\d?\b(?![.\-/])")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its place, language and content."""

    place: str
    language: str
    text: str


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name):
    """Lists the fenced blocks of a document."""
    text = read(name)
    return [
        Block(f"{name}:{text.count(chr(10), 0, m.start()) + 1}", m[1], m[2])
        for m in _BLOCK.finditer(text)
    ]


def commands():
    """Finds all command lines, in blocks and in running text.

    Returns:
        Dictionary from the line to the first place where it appears.
    """
    found = {}
    for name in DOCUMENTS:
        for block in blocks(name):
            if block.language == "shell":
                for line in block.text.splitlines():
                    found.setdefault(plain(line), block.place)
        for match in _SPAN.finditer(_BLOCK.sub("", read(name))):
            if _STARTS.match(match[1]) and " " in match[1]:
                found.setdefault(match[1], name)
    found.pop("", None)
    return found


def commands_on_top(path):
    """Lists the command lines in the docstring of a script."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    text = (text or "").replace("\\\n", " ")
    return re.findall(r"^    (python .+)$", text, re.M)


def plain(line):
    """Removes a comment and surrounding space."""
    return re.sub(r"(^|\s)#\s.*", "", line).strip()


def parts(command):
    """Splits a command line into programs, each a list of words."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    found = [[]]
    for word in lexer:
        if set(word) <= set("&|;"):
            found.append([])
        else:
            found[-1].append(word)
    return found


def script_of(words):
    """Finds the repository's script that a program runs, and its arguments.

    Returns:
        Path of the script in the repository and the list of its arguments, or
        `None`.
    """
    for i, word in enumerate(words):
        if word == "python" and words[i + 1].endswith(".py"):
            return words[i + 1], words[i + 2 :]
    return None
