"""The command `convmixer`, over the same functions as the scripts."""

from convmixer_tf.cli.commands import main

__all__ = ["main"]
