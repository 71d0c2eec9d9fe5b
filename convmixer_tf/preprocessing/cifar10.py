"""CIFAR-10's pixel statistics and class names."""

# Per channel (red, green, blue), for the training images' pixels scaled to [0,
# 1]. The values are from github.com/locuslab/convmixer-cifar10.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)

# In the order of the labels. https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
