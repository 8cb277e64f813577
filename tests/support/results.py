"""Comparing results of judges that were loaded apart."""

import math


def alike(found, expected, tolerance=1e-5):
    """Say whether two results, or lists of them, are the same but for a float's last digits.

    Weights loaded twice lie elsewhere in memory, and on some processors the order of a sum follows that.
    """
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list | tuple):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(alike(one, other, tolerance) for one, other in pairs)
    if isinstance(expected, float):
        return math.isclose(found, expected, abs_tol=tolerance)
    return found == expected
