"""Where things stand in the clone."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
SUPPORT = TESTS / "support"
GOLDEN = TESTS / "golden"
TOKENIZER = TESTS / "data" / "tokenizer"
