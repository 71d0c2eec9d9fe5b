"""An HTTP server for classifiers: an image comes in, its best classes go out.

`export/serve/server.py` starts it; `export/serve/README.md` has its limits.
"""

try:
    from convmixer_tf.serve.application import Limits
    from convmixer_tf.serve.application import Service
    from convmixer_tf.serve.batching import BatchedClassifier
    from convmixer_tf.serve.batching import give_way
    from convmixer_tf.serve.connections import make_server
    from convmixer_tf.serve.images import Decoder
except ModuleNotFoundError as error:
    raise ImportError(
        f"The server needs {error.name}. Install the extra: "
        'pip install "convmixer_tf[serve]"'
    ) from error

__all__ = [
    "BatchedClassifier",
    "Decoder",
    "Limits",
    "Service",
    "give_way",
    "make_server",
]
