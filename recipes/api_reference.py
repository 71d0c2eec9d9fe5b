"""Writes the API reference: HTML pages of all public names, with a search.

    python recipes/api_reference.py --output build/api

Made by pdoc from the docstrings, a page for each package that has an
`__all__`. What pdoc warns of, such as a signature that can't be shown, is an
error. Open `build/api/index.html`.

Time: ten seconds.
"""

import importlib
import os
import pathlib
import pkgutil
import re
import warnings

import launch
import pdoc
import run_flags
from absl import flags
from absl import logging

import convmixer_tf
from convmixer_tf.files import check_folder_destination
from convmixer_tf.files import replaced_folder

MARK = "index.html"

_OUTPUT = flags.DEFINE_string("output", "build/api", "Folder to write.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", True, "Whether to replace a reference that is there."
)


def public_packages():
    """Lists the packages that say what is public in them, and other modules.

    Returns:
        Two lists of names.
    """
    name = convmixer_tf.__name__
    found = list(pkgutil.walk_packages(convmixer_tf.__path__, f"{name}."))
    packages = [name, *(x.name for x in found if x.ispkg)]
    public = [
        x for x in packages if hasattr(importlib.import_module(x), "__all__")
    ]
    return public, [x.name for x in found if x.name not in public]


def write_reference(folder):
    """Writes the pages.

    Args:
        folder: Path of an empty folder.

    Raises:
        UserWarning: If pdoc has an objection.
    """
    packages, modules = public_packages()
    # Or else a module hides the function of the same name.
    left_out = [f"!{re.escape(name)}$" for name in modules]
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        footer_text=f"convmixer_tf {convmixer_tf.__version__}",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*packages, *left_out, output_directory=pathlib.Path(folder))
    drop_dead_links(pathlib.Path(folder))


def drop_dead_links(folder):
    """Makes plain text of links to what pdoc knows but does not show.

    These are attributes that a layer inherits from Keras.

    Args:
        folder: Path of the pages.
    """
    pages = {
        path.resolve(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*.html")
    }
    anchors = {
        path: set(re.findall(r'\bid="([^"]+)"', text))
        for path, text in pages.items()
    }
    for path, text in pages.items():

        def plain_if_dead(link, path=path):
            target = (path.parent / link[1]).resolve() if link[1] else path
            alive = link[2] in anchors.get(target, ())
            return link[0] if alive else link[3]

        text = re.sub(
            r'<a href="([^"#:]*)#([^"]+)">([^<]*)</a>', plain_if_dead, text
        )
        path.write_text(text, encoding="utf-8")


def main(argv):
    """Writes the reference as the flags say."""
    run_flags.begin(argv)
    os.makedirs(os.path.dirname(_OUTPUT.value) or os.curdir, exist_ok=True)
    check_folder_destination(_OUTPUT.value, MARK, _OVERWRITE.value)
    with replaced_folder(_OUTPUT.value) as unfinished:
        write_reference(unfinished)
    logging.info("%s", os.path.join(_OUTPUT.value, MARK))


if __name__ == "__main__":
    launch.run(main)
