"""Files that are compressed as a whole, told by a second suffix."""

import gzip
import io
from pathlib import Path
from typing import BinaryIO, cast

COMPRESSIONS = (".gz", ".zst")


def kind_of(path: Path) -> tuple[str, str]:
    """Return the suffix that tells a file's format, and that of its compression, which is mostly empty."""
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), suffix
    return suffix, ""


def opened(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed.

    Raises:
        EOFError: It should be compressed, and is empty; a file without any rows is not, once it is compressed.
    """
    compression = kind_of(path)[1]
    if compression and not path.stat().st_size:
        raise EOFError("it is empty")
    if compression == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if compression == ".zst":
        import pyarrow as pa  # takes long to import, and only this needs it

        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")))
    return path.open("rb")
