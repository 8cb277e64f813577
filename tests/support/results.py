"""Comparing results of judges that were loaded apart."""

import math

from inspector_pipeline import InspectorPipeline


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


def mark_pairs(monkeypatch, unfamiliar="odd", seen="known"):
    """Let every judge call pairs with one word unfamiliar, and those with another seen."""
    plain = InspectorPipeline.score_encoded

    def marked(self, window, **kwargs):
        for pair, result in zip(window, plain(self, window, **kwargs), strict=True):
            text = self.tokenizer.decode(next(iter(pair.values())).input_ids)
            is_odd = unfamiliar in text
            reason = f"says {unfamiliar} in {len(text)} letters, at most 3" if is_odd else None
            flags = {"unfamiliar": is_odd, "unfamiliar_reason": reason}
            yield {**result, **flags, "seen": seen in text}

    monkeypatch.setattr(InspectorPipeline, "score_encoded", marked)
