"""Confidence intervals of fractions of counts."""

import math

# Quantile of the normal distribution for 95 %.
_Z = 1.959964


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Computes Wilson's 95 % confidence interval of a fraction.

    Wilson, "Probable Inference, the Law of Succession, and Statistical
    Inference", Journal of the American Statistical Association 22, 1927.

    Args:
        successes: Integer, how many of them.
        count: Integer, of how many; at least 1.

    Returns:
        Tuple of two fractions, the lower and the upper end.
    """
    fraction = successes / count
    middle = fraction + _Z**2 / (2 * count)
    half = _Z * math.sqrt(
        fraction * (1 - fraction) / count + _Z**2 / (4 * count**2)
    )
    scale = 1 + _Z**2 / count
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def exact_interval(successes: int, count: int) -> tuple[float, float]:
    """Computes the exact 95 % confidence interval of a fraction.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated
    in the case of the binomial", Biometrika 26, 1934.

    Args:
        successes: Integer, how many of them.
        count: Integer, of how many; at least 1.

    Returns:
        Tuple of two fractions, the lower and the upper end.
    """
    low = 1 - _upper_end(count - successes, count)
    return low, _upper_end(successes, count)


def _upper_end(successes, count):
    """Finds the fraction where at most `successes` have probability 2.5 %."""
    if successes == count:
        return 1.0
    low, high = successes / count, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if _at_most(successes, count, middle) > 0.025:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _at_most(successes, count, fraction):
    """Computes the probability of at most `successes` successes."""
    # Sum over the shorter tail.
    if successes > count / 2:
        return 1 - _at_most(count - successes - 1, count, 1 - fraction)
    odds = math.log(fraction) - math.log1p(-fraction)
    term = count * math.log1p(-fraction)
    total = math.exp(term)
    for i in range(successes):
        term += math.log((count - i) / (i + 1)) + odds
        total += math.exp(term)
    return total if successes >= 0 else 0.0


def paired_interval(lost: int, gained: int, count: int) -> tuple[float, float]:
    """Computes the 95 % confidence interval of a drop in accuracy.

    Two models classify the same images. Only the images that exactly one of
    them gets right matter. Half an image is added to each of the four cells:
    Agresti and Min, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 24, 2005.

    Args:
        lost: Integer, the number of images that only the first model gets
            right.
        gained: Integer, the number of images that only the second model gets
            right.
        count: Integer, the number of all images; at least 1.

    Returns:
        Tuple of two differences of fractions, the lower and the upper end.
    """
    images = count + 2
    fall = (lost - gained) / images
    half = _Z * math.sqrt((lost + gained + 1) / images - fall**2)
    half /= math.sqrt(images)
    return fall - half, fall + half
