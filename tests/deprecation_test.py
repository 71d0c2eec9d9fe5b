"""Names of release 0.1 that still work."""

import pytest

from convmixer_tf import analysis
from convmixer_tf import data


@pytest.mark.parametrize(
    ("package", "old", "new"),
    [
        (data, "Recipe", "Augmentation"),
        (analysis, "save_costs", "costs.save_costs"),
        (data, "get_recipe", "get_augmentation"),
        (data, "open_unlabelled", "open_unlabeled"),
    ],
)
def test_old_names(package, old, new):
    with pytest.warns(FutureWarning, match=rf"{old} is deprecated.*{new}\."):
        assert getattr(package, old) is getattr(package, new)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        data.nothing  # noqa: B018
