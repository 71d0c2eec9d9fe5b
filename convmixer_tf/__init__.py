"""ConvMixer ("Patches Are All You Need?") for Keras 3 and TensorFlow."""
