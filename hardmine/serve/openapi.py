"""The OpenAPI description of the JSON interface, made from the table of endpoints."""

from __future__ import annotations

from typing import Any

import msgspec

from hardmine._version import __version__
from hardmine.serve.api import ENDPOINTS
from hardmine.serve.endpoint import Endpoint

_ERRORS = {
    "400": "Not understood; error says why.",
    "401": "The token is missing.",
    "403": "The request comes from elsewhere.",
    "404": "There is no such thing, or no longer.",
    "413": "The body is too large.",
}


def describe() -> dict[str, Any]:
    """The description as JSON values."""
    structs = {
        kind
        for endpoint in ENDPOINTS
        for kind in (endpoint.query, endpoint.body)
        if kind not in (None, bytes)
    }
    ordered = sorted(structs, key=lambda kind: kind.__name__ if kind else "")
    _, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hardmine serve", "version": __version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint, schemas)],
        "responses": {
            "200": {
                "description": "What was asked for.",
                "content": {kind: {} for kind in endpoint.media_types},
            },
            **{status: {"description": text} for status, text in _ERRORS.items()},
        },
    }
    if endpoint.body is bytes:
        content = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    elif endpoint.body is not None:
        reference = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
        content = {"application/json": {"schema": reference}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(kind)}
        for name, kind in endpoint.params.items()
    ]


def _query_parameters(endpoint: Endpoint, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = schemas[endpoint.query.__name__]
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in schema["properties"].items()
    ]
