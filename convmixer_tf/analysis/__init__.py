"""What a model costs."""

from convmixer_tf.analysis.macs import count_macs

__all__ = ["count_macs"]
