"""What makes a judge: `make_judge` from a table of labels, and every step of it as a stage, `python -m training`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .judging import make_judge

__all__ = ["make_judge"]


def __getattr__(name: str) -> Any:
    """Import what takes long once it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .judging import make_judge

    return make_judge
