"""An HTTP server for classifiers. It returns the top classes of an image.

`export/serve/server.py` starts it; `export/serve/README.md` has its limits.
"""

try:
    from convmixer_tf.serve.server import make_server
except ModuleNotFoundError as error:
    raise ImportError(
        f"The server needs {error.name}. Install the extra: "
        'pip install "convmixer_tf[serve]"'
    ) from error

__all__ = ["make_server"]
