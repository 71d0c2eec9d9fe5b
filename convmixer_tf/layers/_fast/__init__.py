"""What is faster than Keras where Keras runs, and gives the same numbers."""
