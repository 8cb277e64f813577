"""Small forests, for tests to which the size of a baseline's forest is irrelevant."""

import pytest
from inspector_training.evaluation.methods.text import BASELINES, Surface


@pytest.fixture(autouse=True, scope="session")
def few_trees():
    """Give the surface baseline 20 trees instead of 300: what is tested is what is done with its predictions."""
    for baseline in BASELINES:
        if isinstance(baseline, Surface):
            object.__setattr__(baseline, "trees", 20)
