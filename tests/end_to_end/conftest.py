"""What all tests of this folder share."""

from support.forests import few_trees

__all__ = ["few_trees"]
