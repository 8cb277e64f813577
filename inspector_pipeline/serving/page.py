"""The API's description as a page that needs neither a script nor a network."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}"
    "pre{background:#f4f4f4;padding:.6rem;overflow:auto}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ccc;padding:.2rem .6rem;text-align:left;vertical-align:top}"
)


def page_of(description: dict[str, Any]) -> str:
    """Write a page of an OpenAPI description.

    Args:
        description: An OpenAPI document, with references to its own schemas alone.

    Returns:
        HTML, in which every text of the description is escaped.
    """
    title = escape(description["info"]["title"])
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><h1>{title}</h1>',
        f'<p>{escape(description["info"].get("description", ""))} <a href="openapi.json">openapi.json</a></p>',
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation, description)
    parts.append("<h2>Schemas</h2>")
    for name, schema in description["components"]["schemas"].items():
        parts.append(f'<h3 id="{escape(name)}">{escape(name)}</h3>{_json(schema)}')
    return "".join([*parts, "</body></html>"])


def _operation(name: str, operation: dict[str, Any], description: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{escape(name)}</h2><p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield f"<p>Body: {_named(body)}</p>"
        for example in _resolved(body, description).get("examples", []):
            yield _json(example)
    yield "<table><tr><th>Code</th><th>Meaning</th><th>Body</th></tr>"
    for code, answer in operation["responses"].items():
        schemas = [kind.get("schema", {}) for kind in answer.get("content", {}).values()]
        kinds = ", ".join(_named(schema) for schema in schemas if schema)
        yield f"<tr><td>{escape(code)}</td><td>{escape(answer['description'])}</td><td>{kinds}</td></tr>"
    yield "</table>"


def _named(schema: dict[str, Any]) -> str:
    """Return links to the schemas that one names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_named, schema["anyOf"]))
    if "items" in schema:
        return f"list of {_named(schema['items'])}"
    return escape(str(schema.get("type", "anything")))


def _resolved(schema: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"
