"""Tests which modules may import which, and the cost of imports."""

import ast
import graphlib
import pathlib

import pytest

import convmixer_tf
from tests.helpers import run_python

SHARED = {"command_line", "deprecation", "files", "model_card", "progress"}
SHARED |= {"intervals", "stopping", "timing", "validation"}
PACKAGE = pathlib.Path(convmixer_tf.__file__).parent

# Subpackage -> subpackages it may import, as in the package's README.md.
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
    "cli": {
        *("analysis", "data", "export", "inference", "layers", "models"),
        *("predict", "preprocessing", "serve", "training", "weights"),
    },
    "__main__.py": {"cli"},
}


# Modules that scripts may import, beside the names in `__all__` and the
# commands in `convmixer_tf.cli`.
PUBLIC_MODULES = {
    *("convmixer_tf.files", "convmixer_tf.model_card", "convmixer_tf.predict"),
    "convmixer_tf.layers._fast.choice",  # Its README documents it.
    *("convmixer_tf.progress", "convmixer_tf.timing"),
    *("convmixer_tf.training.finetune", "convmixer_tf.training.step"),
    "convmixer_tf.validation",
    "convmixer_tf.weights.packaged",
}
SCRIPTS = sorted(
    path
    for folder in ("recipes", "export")
    for path in (PACKAGE.parent / folder).rglob("*.py")
)


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path):
    """Yields (module, name) for a file's imports from this package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        yield from (x for x in found if x[0].split(".")[0] == "convmixer_tf")


def public_names(module):
    """Reads the `__all__` of a package."""
    path = MODULES.get(module)
    if path is None or path.name != "__init__.py":
        return ()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return ()


def imported_module(module, name):
    """Returns the imported module. `name` may be a module itself."""
    inner = f"{module}.{name}"
    is_module = inner in MODULES and name not in public_names(module)
    return inner if is_module else module


def test_imports_run_one_way():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert rooms - {"__pycache__"} <= set(ALLOWED)
    others = {path.name for path in PACKAGE.glob("*.py")} - set(ALLOWED)
    assert others == {"__init__.py", *(f"{x}.py" for x in SHARED)}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        if room in ALLOWED:
            modules = {imported_module(*x) for x in imports_of(path)}
            others = {x.partition(".")[2].split(".")[0] for x in modules}
            shared = SHARED if room != "layers" else set()
            assert others <= {room, "", *ALLOWED[room], *shared}, path


def test_no_module_imports_itself_by_others():
    graph = {
        module: {imported_module(*x) for x in imports_of(path)} - {module}
        for module, path in MODULES.items()
    }
    assert len(graph) > 100
    graphlib.TopologicalSorter(graph).prepare()  # `CycleError` names a cycle.


def is_public(module, name):
    place = imported_module(module, name)
    if place in PUBLIC_MODULES or place.startswith("convmixer_tf.cli"):
        return not str(name).startswith("_")
    package = MODULES.get(f"{module}.{name}" if name else module)
    is_package = package is not None and package.name == "__init__.py"
    return name in public_names(module) or is_package


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_public_names_only(path):
    private = {name for m, name in imports_of(path) if not is_public(m, name)}
    assert private == set()


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
    # Processor seconds, which do not depend on other load.
    code = (
        "import time, keras, tensorflow; start = time.process_time()\n"
        "import convmixer_tf; print(time.process_time() - start)"
    )
    assert min(float(run_python(code)) for _ in range(2)) < 0.3
