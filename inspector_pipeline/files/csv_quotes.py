"""Where a CSV file's quotes are broken: which lines cannot be told apart into records."""

import csv
import re
from collections.abc import Iterator

WELL_QUOTED = re.compile(r'(?:"(?:[^"]|"")*+"|[^",\r\n]*+)(?:,(?:"(?:[^"]|"")*+"|[^",\r\n]*+))*+[\r\n]*')
QUOTE = re.compile('"')
CLOSED = re.compile(r'(?:^|,)[^",\r\n][^,\r\n]*"(?:[,\r\n]|$)')  # a field that no quote has opened


def broken_stretch(lines: Iterator[str], n_fields: int, header_lines: int) -> range:
    """Find the lines from the first broken record to the last one; a record is broken where a quote makes no sense.

    Where a response holds quotes that are not doubled, its field seems to end early, and its further lines look like
    records. So the stretch begins at the last record before that may have ended early, and ends only where two
    readings agree that no field is open: one takes each quote for a border, the other only those beside a comma or the
    end of a line. A field that a quote ends but none begins is broken where an earlier one was well quoted.

    Args:
        lines: The file's lines, after the header.
        n_fields: How many fields a record has.
        header_lines: How many lines the header takes.

    Returns:
        The lines' numbers, from 1 with the header's; empty where nothing is broken.
    """
    taken: list[str] = []
    source = _Lines(lines, taken, header_lines)
    reader = csv.reader(source, strict=True)
    start = stop = 0
    early = quoted = 0  # the lines of records that may have ended early: of another number of fields, and others
    while True:
        taken.clear()
        first = source.number + 1
        try:
            fields = next(reader, None)
        except csv.Error:
            fields = []
            is_broken, is_end = True, False
        else:
            if fields is None:
                return range(start, stop)
            text = "".join(taken)
            if '"' not in text:
                continue
            fits, well = len(fields) == n_fields, WELL_QUOTED.fullmatch(text) is not None
            is_end = bool(quoted) and not early and fits and not well and CLOSED.search(text) is not None
            is_broken = (not well and (not fits or is_end or bool(early))) or (bool(start) and not (fits and well))
            if not is_broken and fits and well:
                early, quoted = 0, first
            elif not is_broken and not fits:
                early = early or first
        if is_broken:
            start = start or early or (quoted if fields else 0) or first
            stop = source.number + 1 if is_end else _end_of_broken(source, taken)
            early = quoted = 0


class _Lines:
    """Counts the lines that are taken, and keeps those of one record."""

    def __init__(self, lines: Iterator[str], taken: list[str], number: int) -> None:
        self._lines, self._taken, self.number = lines, taken, number

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self._taken.append(line)
        return line


def _end_of_broken(source: _Lines, taken: list[str]) -> int:
    """Read on to where both readings agree that no field is open; returns the number of the line after."""
    odd = is_open = False
    possible = 0  # where the first reading sees no open field, and no quote has followed
    while True:
        for line in taken:
            quotes = line.count('"')
            odd ^= quotes % 2 == 1
            is_open = _is_open(line, is_open)
            if quotes:
                possible = 0
            if not odd and not possible:
                possible = source.number + 1
        if not odd and not is_open:
            return source.number + 1
        taken.clear()
        if next(source, None) is None:
            return possible or source.number + 1


def _is_open(line: str, is_open: bool) -> bool:
    """Say whether a field is open after a line, where quotes within one count only beside a comma or a line's end."""
    single = line.replace('""', "")
    for found in QUOTE.finditer(single):
        at = found.start()
        closes, opens = single[at + 1 : at + 2] in ("", ",", "\r", "\n"), at == 0 or single[at - 1] == ","
        is_open = not closes if is_open else opens
    return is_open
