"""The parts of `train_cifar10_jax.py`. Those that make batches need no JAX."""
