"""Who may import whom, and what an import may cost."""

import ast
import pathlib

import pytest

import convmixer_tf
from tests.helpers import run_python

SHARED = {"command_line", "files", "model_card", "progress", "stopping"}
SHARED |= {"timing", "validation"}
PACKAGE = pathlib.Path(convmixer_tf.__file__).parent

# Room -> the rooms it may import. BUILD.md draws the same picture.
ALLOWED = {
    "layers": set(),
    "preprocessing": set(),
    "weights": set(),
    "models": {"layers", "preprocessing", "weights"},
    "data": {"preprocessing"},
    "training": {"layers", "models", "preprocessing", "data"},
    "export": {"layers", "models", "preprocessing", "weights", "data"},
    "analysis": {"layers", "models", "preprocessing", "weights"},
    "inference": {"models", "preprocessing", "weights", "data", "export"},
    "serve": {"data", "inference"},
    "predict.py": {"data", "inference", "models"},
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [node.module]
        else:
            continue
        for name in names:
            if name.startswith("convmixer_tf."):
                yield name.split(".")[1]


def test_imports_run_one_way():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert rooms - {"__pycache__"} <= set(ALLOWED)
    others = {path.name for path in PACKAGE.glob("*.py")} - set(ALLOWED)
    assert others == {"__init__.py", *(f"{x}.py" for x in SHARED)}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        if room in ALLOWED:
            others = set(imported_rooms(path)) - {room}
            shared = SHARED if room != "layers" else set()
            assert others <= ALLOWED[room] | shared, path


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=str)
def test_public_keras_only(path):
    source = path.read_text(encoding="utf-8")
    assert "keras.src" not in source
    assert "tf.keras" not in source


def test_import_loads_what_is_needed_and_has_no_side_effects(tmp_path):
    loaded = run_python(
        "import os, socket, sys, keras; before = set(sys.modules)\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "environment = dict(os.environ)\n"
        "seen = [keras.config.dtype_policy().name, keras.config.floatx()]\n"
        "os.chdir(sys.argv[1])\n"
        "import convmixer_tf.layers\n"
        "print(*sorted(n for n in sys.modules if n.startswith('convmixer_')))\n"
        "import convmixer_tf\n"
        "print(*sorted({n.split('.')[0] for n in set(sys.modules) - before}))\n"
        "assert dict(os.environ) == environment\n"
        "now = [keras.config.dtype_policy().name, keras.config.floatx()]\n"
        "assert now == seen\n",
        tmp_path,
        PYTHONPATH=str(PACKAGE.parent),
    ).splitlines()
    rooms = {n.split(".")[1] for n in loaded[0].split() if "." in n}
    assert not rooms & {"data", "training", "export", "analysis", "inference"}
    heavy = {"torch", "jax", "huggingface_hub", "matplotlib", "absl", "sklearn"}
    assert not heavy & set(loaded[1].split())
    assert len(loaded) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.large
def test_import_adds_little_to_that_of_keras():
    # Seconds of the processor, so that a busy machine does not matter.
    code = (
        "import time, keras, tensorflow; start = time.process_time()\n"
        "import convmixer_tf; print(time.process_time() - start)"
    )
    assert min(float(run_python(code)) for _ in range(2)) < 0.3
