"""The command `convmixer`. The scripts use the same functions."""

from convmixer_tf.cli.commands import main

__all__ = ["main"]
