"""Refuse to publish access tokens and paths of this machine, in whatever file they stand."""

import json
import os
import re
import struct
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from huggingface_hub import get_token

from inspector_pipeline.errors import DataFileError

SHOWN = 10

# What stands before a token or path must not be part of a longer word or of an address.
TOKENS = {
    "a Hugging Face token": r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "an OpenAI-like key": r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"(?<![A-Za-z0-9])xox[abprs]-[A-Za-z0-9-]{10,}",
    "a Google API key": r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}",
    "an AWS key id": r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "an AWS secret": r"(?i)aws_secret_access_key[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+=]{20,}",
    "a bearer token": r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{16,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
PATHS = {
    "a path in a home folder": r"(?<![\w.~%-])/(?:home|Users)/[\w.-]+",
    "a path in root's home folder": r"(?<![\w.~%-])/root(?![\w.-])",
    "a path in a Windows home folder": r"(?i)(?<![A-Za-z0-9])[A-Z]:[\\/]+Users[\\/]+[\w.-]+",
}
# Vocabularies of code models hold pieces of paths, which are nobody's.
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_ENTITIES = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,8});")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_WRAPPED = re.compile(r"(?:^[A-Za-z0-9+/]{40,}\r?\n)+^[A-Za-z0-9+/]+={0,2}$", re.MULTILINE)
_MOST_BASE64 = 1 << 20  # characters of a piece that is decoded; figures are longer, and their texts are searched alone
_ESCAPES = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(/|\\))")


@dataclass(frozen=True)
class Leak:
    """Something that must not be published.

    Attributes:
        file: Path in the folder.
        line: Line, from 1; 0 where the file has no lines.
        kind: What it looks like. The thing itself is never repeated.
    """

    file: str
    line: int
    kind: str


def find_leaks(folder: Path, own_paths: Iterable[str | os.PathLike[str]] = ()) -> list[Leak]:
    """Search every file of a folder; of safetensors, the header with its metadata.

    Args:
        folder: What is to be published.
        own_paths: Folders of this machine beside the working and the home folder, whose names must not appear.

    Returns:
        The leaks, in the order of files and lines.
    """
    tokens = {kind: re.compile(pattern) for kind, pattern in TOKENS.items()}
    own_token = get_token()
    if own_token:
        tokens["your access token"] = re.compile(re.escape(own_token))
    paths = {kind: re.compile(pattern) for kind, pattern in PATHS.items()}
    named: defaultdict[str, set[str]] = defaultdict(set)  # several may have one name
    for own in {*map(os.path.abspath, own_paths), *map(os.path.realpath, own_paths), os.getcwd(), str(Path.home())}:
        if len(Path(own).parts) > 1:
            named[Path(own).name].add(re.escape(own))
    for name, own_ones in named.items():
        pattern = rf"(?<![\w.~%-])(?:{'|'.join(sorted(own_ones))})(?![\w-])"
        paths[f"a path of this machine ({name})"] = re.compile(pattern)
    leaks = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            searched = tokens if path.name in VOCABULARIES else tokens | paths
            leaks += [Leak(name, line, kind) for line, text in _lines(path) for kind in _found(text, searched)]
    return list(dict.fromkeys(leaks))


def refuse_leaks(folder: Path, own_paths: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Search a folder and refuse it where anything is found.

    Raises:
        DataFileError: There is a leak; file and line are named, the thing itself is not.
    """
    leaks = find_leaks(folder, tuple(own_paths))
    if leaks:
        named = "; ".join(
            f"{leak.file}{f' line {leak.line}' if leak.line else ''} holds {leak.kind}" for leak in leaks[:SHOWN]
        )
        more = f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
        raise DataFileError(
            f"A repo expects no access token and no path of your machine, but {named}{more}. Remove them from the "
            "judge's files (backbone_id may be set to a Hub id), and revoke any token that was shared before."
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file, as UTF-8 and where it has zero bytes as UTF-16 too.

    Of safetensors it is the header alone, as line 0.
    """
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            yield 0, json.dumps(json.loads(file.read(length)), ensure_ascii=False)
    else:
        data = path.read_bytes()
        text = data.decode("utf-8", "replace")
        yield from enumerate(text.splitlines(), start=1)
        yield from ((0, "".join(wrapped.split())) for wrapped in _WRAPPED.findall(text))
        if b"\0" in data:
            for start, order in ((0, "le"), (0, "be"), (1, "le"), (1, "be")):
                yield from ((0, line) for line in data[start:].decode(f"utf-16-{order}", "replace").splitlines())


def _found(line: str, patterns: dict[str, re.Pattern[str]]) -> list[str]:
    """Search a line as it stands, and as it is meant: with escapes undone, and what is written in base64."""
    forms = _meant(line)
    pieces = [piece for text in forms for piece in _BASE64.findall(text)]
    forms += [meant for piece in pieces for start in range(4) for meant in _meant(_from_base64(piece[start:]))]
    return [kind for kind, pattern in patterns.items() if any(map(pattern.search, forms))]


def _meant(text: str) -> list[str]:
    """Return a text, and where it has escapes of JSON and source code, of addresses or of markup, with these undone."""
    plain = _ESCAPES.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2], text)
    plain = _PERCENT.sub(lambda m: unquote(m[0], errors="replace"), plain)
    plain = _ENTITIES.sub(lambda m: unescape(m[0]), plain)
    return [text] if plain == text else [text, plain]


def _from_base64(piece: str) -> str:
    """Decode base64 of either alphabet; blank where it is too long or stands for no text."""
    if len(piece) > _MOST_BASE64:
        return ""
    text = piece.rstrip("=").translate(str.maketrans("-_", "+/"))
    text = text[: len(text) - (len(text) % 4 == 1)]  # one sign alone stands for no byte
    data = b64decode(text + "=" * (-len(text) % 4))
    return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-8", "replace")
