"""Files of skops as plain data: a zip of schema.json and .npy files, read from memory and once."""

import io
import json
import zipfile
import zlib
from typing import Any

from .inert import MAX_BYTES, MAX_STEPS, Record, UnsafePickleError, known, require, shown

MAX_SCHEMA_BYTES = 32 * 2**20
MAX_MEMBERS = 10_000
MAX_DEPTH = 64
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that unpack no more than is asked of them
UNREAD = ("MaskedArrayNode", "DTypeNode", "FunctionNode", "TypeNode")  # nothing of a probe stands in them


def read_skops(data: bytes, where: str) -> Any:
    """Read a .skops file as plain data.

    Args:
        data: Its bytes.
        where: The file, for messages.

    Returns:
        As `inert.read_pickle`; arrays are records of the name `npy` that hold the bytes of their .npy.

    Raises:
        UnsafePickleError: It holds something that a fitted classifier has no need of, or is no .skops.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename: member for member in archive.infolist()}
            count = len(archive.infolist())
            require(len(members) == count, f"{where} holds two members of one name.")
            require(count <= MAX_MEMBERS, f"{where} expects at most {MAX_MEMBERS:,} members, but holds {count:,}.")
            right = all(member.compress_type in METHODS for member in members.values())
            require(right, f"{where} expects members that are stored or deflated, but holds others.")
            unpacked = sum(member.file_size for member in members.values())
            problem = f"{where} expects at most {MAX_BYTES:,} bytes unpacked, but says {unpacked:,}."
            require(unpacked <= MAX_BYTES, problem)
            schema = members.get("schema.json")
            right = schema is not None and schema.file_size <= MAX_SCHEMA_BYTES
            require(right, f"{where} expects a schema.json of at most {MAX_SCHEMA_BYTES:,} bytes.")
            files = {}
            for name, member in members.items():
                with archive.open(member) as file:
                    files[name] = file.read(member.file_size + 1)
        return _Schema(files, where).value(json.loads(files["schema.json"]), 0)
    except UnsafePickleError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,  # an encrypted member, JSON nested too deep, or a method of compression that is not there
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        problem = f"{where} is no well-formed .skops: {shown(str(error))}."
        raise UnsafePickleError(f"{problem} Nothing of it was run or loaded.") from error


class _Schema:
    """Turns nodes into values; a node that was met before is the same value again."""

    def __init__(self, files: dict[str, bytes], where: str) -> None:
        self.files, self.where = files, where
        self.met: dict[int, Any] = {}
        self.steps = 0

    def value(self, node: dict[str, Any], depth: int) -> Any:
        self.steps += 1
        small = depth <= MAX_DEPTH and self.steps <= MAX_STEPS
        require(small, f"{self.where} expects at most {MAX_DEPTH} levels and {MAX_STEPS:,} nodes, but has more.")
        require(type(node) is dict, f"{self.where} expects nodes, but its schema holds {shown(node)}.")
        name = node.get("__id__")
        if type(name) is int and name in self.met:
            return self.met[name]
        found = self._new(node, depth)
        if type(name) is int:
            self.met[name] = found
        return found

    def _new(self, node: dict[str, Any], depth: int) -> Any:
        loader, module = node["__loader__"], node["__module__"]
        if loader == "DictNode":
            return {key: self.value(item, depth + 1) for key, item in node["content"].items()}
        if loader in ("ListNode", "TupleNode"):
            items = [self.value(item, depth + 1) for item in node["content"]]
            return items if loader == "ListNode" else tuple(items)
        if loader == "JsonNode":
            value = json.loads(node["content"])
            plain = value is None or isinstance(value, (bool, int, float, str))
            require(plain, f"{self.where} expects a plain value, but got {shown(value)}.")
            return value
        named = f"{module}.{node['__class__']}"
        if loader == "NdArrayNode":
            require(module == "numpy", f"{self.where} names {shown(named)}, which is not on the list of arrays.")
            numbers = node["type"] == "numpy"
            return Record("npy", (self.files[node["file"]],)) if numbers else Record("numpy.ndarray")
        if loader in UNREAD:
            return known(named, self.where)
        problem = f"{self.where} uses {shown(loader)}, which is not on the list of what a classifier needs."
        require(loader == "ObjectNode", problem)
        return Record(known(named, self.where).name, (), self.value(node["content"], depth + 1))
