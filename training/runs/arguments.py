"""A stage's command line, by the types of its config: `--search.inner-folds 5 --features a b --fused`.

Names have hyphens on the command line and underscores in files; a list is one word after another; a switch needs no
value, and `--no-` before its name turns it off. `translated` writes all this as the config's parser reads it.
"""

import argparse
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse as parse_docstring

WIDTH = 100
ITEMS = {str: "TEXT", int: "N", float: "X", Any: "YAML"}


def translated(config: type, words: Sequence[str]) -> list[str]:
    """Write a command line as the parser of a config reads it.

    Args:
        config: The config's dataclass.
        words: The command line. A list in brackets, as in a file, stays as it is, and so does what names no setting.

    Returns:
        `--name=value` for each setting, names with underscores, lists as JSON.

    Example:
        >>> translated(FitConfig, ["--features", "a", "b", "--search.no-bias"])
        ['--features=["a", "b"]', '--search.bias=false']
    """
    left, found = deque(words), list[str]()
    while left:
        word = left.popleft()
        option, mark, value = word.partition("=")
        name, kinds, is_off = _setting(config, option)
        if name is None:
            found.append(word)
        elif bool in kinds and not mark:
            said = left.popleft() if left and left[0] in ("true", "false") and not is_off else str(not is_off).lower()
            found.append(f"--{name}={said}")
        elif (sequence := next((kind for kind in kinds if get_origin(kind) is tuple), None)) is None:
            found.append(f"--{name}{mark}{value}")
        else:
            values = [value] if mark else []
            while not mark and left and not left[0].startswith("--"):
                values.append(left.popleft())
            found.append(f"--{name}={_list(sequence, values, may_be_one=len(kinds) > 1)}")
    return found


def _setting(config: type, option: str) -> tuple[str | None, tuple[Any, ...], bool]:
    """Find a setting: its name with underscores, the types that it may have, and whether `no-` stands before it."""
    kinds, names, is_off = (config,), list[str](), False
    for part in option.removeprefix("--").split(".") if option.startswith("--") else [""]:
        key = part.replace("-", "_")
        inside = {name: kind for one in kinds if is_dataclass(one) for name, kind in get_type_hints(one).items()}
        mapping = next((get_args(one)[1] for one in kinds if get_origin(one) is dict), None)
        if key not in inside and key.startswith("no_") and inside.get(key[3:]) is bool:
            key, is_off = key[3:], True
        if key not in inside and mapping is None:
            return None, (), False
        kinds = types_of(inside.get(key, mapping))
        names.append(key if key in inside else part)  # a key of a mapping is the user's own
    return ".".join(names), kinds, is_off


def types_of(kind: Any) -> tuple[Any, ...]:
    """List the types of a union, but None."""
    members = get_args(kind) if get_origin(kind) not in (None, tuple, dict, list, Literal) else (kind,)
    return tuple(one for one in members if one is not type(None))


def _list(kind: Any, values: list[str], *, may_be_one: bool) -> str:
    """Write a list's words as one value; where a single one may also be no list, it is none."""
    if len(values) == 1 and (may_be_one or values[0][:1] == "[" or values[0] == "null"):
        return values[0]
    item = get_args(kind)[0]
    if get_origin(item) is tuple:
        return json.dumps([value.strip("[]").split(",") for value in values])
    return json.dumps([yaml.safe_load(value) for value in values] if is_dataclass(item) else values)


def show_help(config: type, prog: str, description: str | None) -> None:
    """Print what a stage does and its settings, with the words of its config's docstring."""
    required = " ".join(f"--{_hyphens(one.name)} ..." for one in fields(config) if _is_required(one))
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"%(prog)s {required} [--config FILE] [settings]",
        description=description,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=WIDTH),
    )
    _add_settings(parser.add_argument_group("settings"), config, parser, "", "required")
    files = parser.add_argument_group("files of settings")
    files.add_argument("--config", metavar="FILE", help="YAML or JSON file with any of these settings")
    files.add_argument("--print-config", action="store_true", help="print such a file and stop")
    parser.print_help()


def _add_settings(group: Any, config: type, parser: argparse.ArgumentParser, prefix: str, need: str) -> None:
    documented = (parse_docstring(base.__doc__ or "").params for base in reversed(config.__mro__))
    told = {one.arg_name: one.description or "" for params in documented for one in params}
    nested: list[tuple[str, Any, str, str]] = []
    for one, kind in _settings(config):
        name, kinds, text = (
            f"{prefix}{_hyphens(one.name)}",
            types_of(kind),
            " ".join(told.get(one.name, "").split()),
        )
        if len(kinds) == 1 and is_dataclass(kinds[0]):
            where_used = "" if kind is kinds[0] else "required where these are given"
            nested.append((f"{name}.", kinds[0], text, where_used or need))
            continue
        default = None if one.default_factory is MISSING else one.default_factory()
        default = default if one.default is MISSING else one.default
        text = text.replace("%", "%%")
        if bool in kinds:
            group.add_argument(
                f"--{prefix}{'no-' if default else ''}{_hyphens(one.name)}",
                action="store_true",
                help=f"{text} ({'on' if default else 'off'})",
            )
            continue
        text += f" ({need})" if _is_required(one) else "" if default in (None, (), {}) else f" ({_said(default)})"
        mark, shown = _shape(kinds)
        group.add_argument(f"--{name}{mark}", metavar=shown, help=text)
    for name, kind, text, needed in nested:
        _add_settings(parser.add_argument_group(text.rstrip(".") or name), kind, parser, name, needed)


def _settings(config: type) -> Iterator[tuple[Field[Any], Any]]:
    kinds = get_type_hints(config)
    return ((one, kinds[one.name]) for one in fields(config))


def _shape(kinds: tuple[Any, ...]) -> tuple[str, str]:
    """Say what follows a setting's name: `.KEY` where it is a mapping, and its values."""
    kind = kinds[-1]
    if get_origin(kind) is dict:
        return ".KEY", _shape(types_of(get_args(kind)[1]))[1]
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return "", f"{'A,B' if get_origin(item) is tuple else _shape((item,))[1]} ..."
    if get_origin(kind) is Literal:
        return "", "|".join(map(str, get_args(kind)))
    return "", "YAML" if is_dataclass(kind) else ITEMS.get(kind, "PATH")


def _said(default: Any) -> str:
    if isinstance(default, tuple):
        return " ".join(",".join(one) if isinstance(one, tuple) else str(one) for one in default)
    return repr(default) if default == "" else str(default)


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _hyphens(name: str) -> str:
    return name.replace("_", "-")
