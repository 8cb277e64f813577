"""Under which licence a judge's backbone may be passed on; a judge whose backbone has none is not published."""

import re
from dataclasses import dataclass
from textwrap import fill

from inspector_pipeline.configuration_inspector import InspectorConfig
from inspector_pipeline.errors import DataFileError
from inspector_pipeline.wheel_backbone import GGUF, WHEEL_BACKBONES, is_gguf_id

QWEN3 = ("0.6B", "0.6B-Base", "1.7B", "1.7B-Base", "4B", "4B-Base", "8B", "8B-Base", "14B", "14B-Base", "32B")
KNOWN_LICENSES = {f"Qwen/Qwen3-{size}": "apache-2.0" for size in QWEN3}
KNOWN_FROM = {
    "known": "as its authors publish it",
    "given": "as the publisher of this repo states",
    "hub": "as its card on the Hub states",
}
WIDTH = 100
LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class BackboneLicense:
    """A backbone's licence.

    Attributes:
        id: The Hub's id of it, an SPDX id in small letters mostly.
        base_model: Hub id of the model that the backbone is.
        source: How it is known: a key of `KNOWN_FROM`.
        text: The licence's own text, where the user gave it.
    """

    id: str
    base_model: str
    source: str
    text: str | None = None


def base_model(backbone_id: str) -> str:
    """Return the Hub id of the model that a backbone is: of the original of one in a wheel, of a GGUF file's repo."""
    wheel = WHEEL_BACKBONES.get(backbone_id)
    if wheel:
        return wheel.upstream
    owner, _, rest = backbone_id.removeprefix(GGUF).partition("/")
    return f"{owner}/{rest.partition('/')[0]}" if is_gguf_id(backbone_id) and "/" in rest else backbone_id


def known_license(backbone_id: str) -> str | None:
    """Return the licence of a backbone that this project knows."""
    wheel = WHEEL_BACKBONES.get(backbone_id)
    return wheel.license if wheel else KNOWN_LICENSES.get(backbone_id)


def find_license(
    backbone_id: str, given: str | None = None, text: str | None = None, on_hub: str | None = None
) -> BackboneLicense:
    """Decide a backbone's licence: the user's word, else what this project knows, else its own card on the Hub.

    Args:
        backbone_id: The backbone.
        given: Licence id that the user gave.
        text: Text of the licence that the user gave.
        on_hub: The `license` field of the backbone's card, where it was asked for.

    Raises:
        DataFileError: There is none, or the id is not one.
    """
    known = known_license(backbone_id)
    license_id, source = (given, "given") if given else (known, "known") if known else (on_hub, "hub")
    if not license_id or license_id.lower() in ("unknown", "other") and not text:
        raise DataFileError(
            f"A judge expects its backbone's licence, but none is known for {backbone_id or 'a nameless backbone'} "
            f"(got {license_id}). Pass --backbone-license with its SPDX id (with `other`, --backbone-license-file too)."
        )
    if not LICENSE_ID.fullmatch(license_id.lower()):
        raise DataFileError(f"--backbone-license expects an SPDX id such as apache-2.0, but got {license_id!r}.")
    return BackboneLicense(license_id.lower(), base_model(backbone_id), source, text)


def notice(license_: BackboneLicense, config: InspectorConfig, probes: str | None = None) -> str:
    """Write the NOTICE of a judge's repo: whose each part is, and what was changed.

    Args:
        license_: The backbone's licence.
        config: The judge's: how many layers it keeps, whether the repo holds them, and how the backbone is loaded.
        probes: Whose the probes are; None where they are the publisher's own.
    """
    of = f"{config.backbone_id} (revision {config.backbone_revision or 'main'})"
    held = (
        f"The tensors named backbone.* in model.safetensors are the embeddings and the first {config.depth} layers of "
        f"{license_.base_model}, taken from {of}. Later layers and the language-model head were removed; no weight was "
        "changed but by conversion of its data type. The tokenizer files are that model's."
        if config.fused
        else f"This repo holds no weight of {license_.base_model}. A judge that is loaded loads {of}, "
        f"and runs its first {config.depth} layers."
    )
    own_text = "in LICENSE" if license_.id == "apache-2.0" else "at the backbone's own page"
    text = "in BACKBONE_LICENSE" if license_.text else own_text
    licence = f"Its licence is {license_.id}, {KNOWN_FROM[license_.source]}; the text is {text}."
    code = "The Python files are the Inspector project's, under the Apache License 2.0; the text is in LICENSE."
    parts = [f"Backbone\n--------\n{fill(held, WIDTH)}\n{fill(licence, WIDTH)}", f"Code\n----\n{fill(code, WIDTH)}"]
    if probes:
        parts.append(f"Probes\n------\n{fill(probes, WIDTH)}")
    return "\n\n".join(parts) + "\n"
