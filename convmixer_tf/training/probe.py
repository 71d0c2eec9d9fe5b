"""A linear classifier on features, for fitting a model's head in seconds."""

import dataclasses

import numpy as np

# Candidate L2 penalties for cross-validation, strongest first.
PENALTIES = tuple(10.0 ** (-k / 2) for k in range(-2, 9))
# Used unless the images show that another penalty is better.
DEFAULT_PENALTY = 1e-1
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier on features.

    Attributes:
        kernel: Array of shape (features, classes).
        bias: Array of shape (classes,).
        penalty: The L2 penalty that it was fitted with.
        losses: Dictionary from each penalty to its mean cross-validation loss.
            It is empty if there were too few images.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    losses: dict


def fit_probe(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    multi_label: bool = False,
    seed: int = 0,
    penalty: float | None = None,
) -> Probe:
    """Fits logistic regression with a cross-validated L2 penalty.

    Args:
        features: Float array of shape (images, views, features). All views of
            an image are in the same fold. The first view is used for
            validation.
        targets: Float array of shape (images, classes), 1 for the classes of
            an image and 0 for others.
        weights: Array of shape (images, 1), or (images, classes) if
            `multi_label`, the weights in the loss.
        multi_label: Boolean, whether an image may have several classes. Each
            class is then a separate logistic regression.
        seed: Integer, the seed of the folds.
        penalty: One of `PENALTIES` to use, or `None` to choose by
            cross-validation.

    Returns:
        A `Probe` that is fitted to all images.
    """
    mean = features.mean(axis=(0, 1))
    features = features - mean
    scale = np.sqrt(np.mean(features**2)) + 1e-12
    features = (features / scale).astype("float32")
    problem = features, targets.astype("float32"), weights.astype("float32")
    losses = {}
    if penalty is None:
        losses = _cross_validate(problem, multi_label, seed)
        penalty = _choose(losses)
    *_, (_, fitted) = _path(problem, multi_label, penalty)
    kernel = fitted[:-1] / scale
    means = {key: float(value.mean()) for key, value in losses.items()}
    return Probe(kernel, fitted[-1] - mean @ kernel, penalty, means)


def assign_folds(
    targets: np.ndarray, seed: int, folds: int = FOLDS
) -> np.ndarray:
    """Assigns images to stratified folds.

    Args:
        targets: Array of shape (images, classes), 1 for an image's classes.
        seed: Integer.
        folds: Integer, the number of folds.

    Returns:
        Integer array of shape (images,), the fold of each image.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    # Images with the same classes are adjacent, in random order.
    order = order[np.lexsort(targets[order].T)]
    result = np.empty(len(targets), int)
    result[order] = np.arange(len(targets)) % folds
    return result


def _cross_validate(problem, multi_label, seed):
    """Returns the held-out loss of each image, by penalty."""
    features, targets, weights = problem
    fewest = int(targets.sum(axis=0).min())
    count = FOLDS if multi_label and len(targets) > 9 else min(FOLDS, fewest)
    if count < 2:
        return {}
    folds = assign_folds(targets, seed, count)
    losses = {penalty: np.zeros(len(targets)) for penalty in PENALTIES}
    for fold in range(count):
        kept, left = folds != fold, folds == fold
        part = features[kept], targets[kept], weights[kept]
        for penalty, fitted in _path(part, multi_label, PENALTIES[-1]):
            logits = features[left, 0] @ fitted[:-1] + fitted[-1]
            values, _ = losses_of(logits, targets[left], multi_label)
            losses[penalty][left] = (values * weights[left]).sum(axis=-1)
    return losses


def _choose(losses):
    """Chooses the penalty closest to the default that is as good as the best.

    Its loss may be higher by up to the standard error of the difference. With
    few images, the lowest loss is mostly due to chance.
    """
    if not losses:
        return DEFAULT_PENALTY
    best = min(losses.values(), key=np.mean)
    more = {penalty: values - best for penalty, values in losses.items()}
    good = [p for p, x in more.items() if x.mean() <= x.std() / len(x) ** 0.5]
    return min(good, key=lambda p: abs(np.log(p / DEFAULT_PENALTY)))


def _path(problem, multi_label, last):
    """Fits with each penalty up to `last`, starting from the previous fit."""
    features, targets, weights = problem
    views = features.shape[1]
    rows = features.reshape(-1, features.shape[2])
    targets, weights = (np.repeat(x, views, 0) for x in (targets, weights))
    total = weights.sum() / weights.shape[1]
    shape = rows.shape[1] + 1, targets.shape[1]

    def objective(flat, penalty):
        kernel, bias = np.split(flat.reshape(shape), [-1])
        logits = rows @ kernel.astype("float32") + bias.astype("float32")
        values, errors = losses_of(logits, targets, multi_label)
        errors = errors * (weights / total)
        value = float((values * weights).sum(dtype="float64")) / total
        gradient = np.empty(shape)
        gradient[:-1] = rows.T @ errors + penalty * kernel
        gradient[-1] = errors.sum(axis=0)
        return value + penalty * np.sum(kernel**2) / 2, gradient.reshape(-1)

    flat = np.zeros(shape[0] * shape[1])
    for penalty in PENALTIES:
        flat = minimize(lambda x, p=penalty: objective(x, p), flat)
        yield penalty, flat.reshape(shape)
        if penalty <= last:
            return


def losses_of(
    logits: np.ndarray, targets: np.ndarray, multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Computes losses and their gradients.

    Args:
        logits: Array of shape (images, classes).
        targets: Array of shape (images, classes), 1 for an image's classes.
        multi_label: Boolean, whether an image may have several classes.

    Returns:
        The losses, of shape (images, 1), or (images, classes) if `multi_label`;
        the gradients, probabilities minus targets.
    """
    if multi_label:
        losses = np.logaddexp(0, logits) - targets * logits
        return losses, (1 + np.tanh(logits / 2)) / 2 - targets
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    sums = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(sums) - (targets * logits).sum(axis=1, keepdims=True)
    return losses, exponentials / sums - targets


def minimize(objective, start, steps=300, tolerance=1e-5, memory=10):
    """Minimizes a convex function with L-BFGS.

    Reference: Nocedal and Wright, "Numerical Optimization", algorithm 7.5.

    Args:
        objective: Function of a float64 array of shape (n,) that returns the
            value, a float, and the gradient, of shape (n,).
        start: Array of shape (n,), the starting point.
        steps: Integer, the maximum number of steps.
        tolerance: Float, the maximum entry of the final gradient.
        memory: Integer, the number of steps for the curvature estimate.

    Returns:
        Array of shape (n,).
    """
    x, pairs = start, []
    value, gradient = objective(x)
    for _ in range(steps):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -_times_inverse_hessian(gradient, pairs)
        slope = gradient @ direction
        rate = 1.0 if pairs else min(1.0, 1 / np.linalg.norm(gradient))
        while True:  # Armijo's rule.
            new_x = x + rate * direction
            new_value, new_gradient = objective(new_x)
            if new_value <= value + 1e-4 * rate * slope:
                break
            rate /= 2
            if rate < 1e-6:  # No improvement beyond rounding errors.
                return x
        change, bend = new_x - x, new_gradient - gradient
        if change @ bend > 0:
            pairs = [*pairs, (change, bend, 1 / (change @ bend))][-memory:]
        x, value, gradient = new_x, new_value, new_gradient
    return x


def _times_inverse_hessian(vector, pairs):
    """Multiplies by the estimate of the inverse Hessian matrix."""
    factors = []
    for change, bend, inverse in reversed(pairs):
        factors.append(inverse * (change @ vector))
        vector = vector - factors[-1] * bend
    if pairs:
        change, bend, inverse = pairs[-1]
        vector = vector / (inverse * (bend @ bend))
    for change, bend, inverse in pairs:
        factor = factors.pop() - inverse * (bend @ vector)
        vector = vector + factor * change
    return vector
