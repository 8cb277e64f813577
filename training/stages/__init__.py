"""The stages of the work, one file each: `python -m training X` runs `stages/X.py`."""
