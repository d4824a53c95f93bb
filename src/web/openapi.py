"""The published contract (OpenAPI 3.1, at /schema), exact enough to generate a client's types from.

Litestar tells the routes and their parameters. The handlers below /api read bodies, conditions and keys
themselves, so that the rest is told here, from the Structs that the code itself reads and answers with.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from litestar import Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import OpenAPI

from domain.access import Permission
from domain.values import MODEL_ID
from web.bodies import JSON, JSON_PATCH, MERGE_PATCH
from web.browsers import COOKIE
from web.csv_export import MEDIA_TYPE as CSV
from web.events import JSON_LINES
from web.gateway.schemas import GATEWAY_SCHEMAS, tell_gateway
from web.problems import MEDIA_TYPE
from web.schemas import Document, ref, schemas

MODELS: Final = "/api/config/models"
MODEL: Final = f"{MODELS}/{{model_id}}"
SIGN_IN: Final = ("post", "/api/session")
SCHEMES: Final[Document] = {
    "token": {"type": "http", "scheme": "bearer"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "For the page alone: changes need X-Model-Ledger-Request: 1 and our own origin. "
        "Under TLS its name begins with __Host-.",
    },
}
OPEN: Final = frozenset({"/livez", "/readyz"})
WRITES: Final = frozenset({"post", "put", "patch", "delete"})


def contract() -> OpenAPIConfig:
    """What Litestar is told; no page that loads scripts from elsewhere."""
    return ContractConfig(
        title="Model Ledger",
        version="1",
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin(), YamlRenderPlugin()],
        openapi_router=Router(
            path="/schema", route_handlers=[], include_in_schema=False, opt={"permission": Permission.PUBLIC}
        ),
    )


class ContractConfig(OpenAPIConfig):
    """Has the document completed before it is served."""

    def to_openapi_schema(self) -> OpenAPI:
        """See `OpenAPIConfig.to_openapi_schema`."""
        plain = super().to_openapi_schema()
        return Contract(**{field.name: getattr(plain, field.name) for field in fields(plain)})


class Contract(OpenAPI):
    """The document, with what Litestar cannot know."""

    def to_schema(self) -> Document:
        """See `OpenAPI.to_schema`."""
        document = super().to_schema()
        document["components"]["schemas"] |= {**schemas(), **GATEWAY_SCHEMAS}
        document["components"]["securitySchemes"] = SCHEMES
        document["security"] = [{name: []} for name in SCHEMES]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                operation["responses"].pop("400", None)  # Litestar's own shape, which nothing here has
                if path in OPEN or (method, path) == SIGN_IN:
                    operation["security"] = []
                if path.startswith("/api/"):
                    _complete(operation, changes=method in WRITES and _records(path))
        tell_gateway(document["paths"])
        for (method, path), body in BODIES.items():
            document["paths"][path][method]["requestBody"] = body
        for (method, path), content in CONTENTS.items():
            document["paths"][path][method]["responses"]["200"]["content"] = content
        document["paths"][MODEL]["get"]["responses"]["304"] = {"description": "The client has it already"}
        undo = document["paths"][f"{MODEL}/undo"]["post"]["responses"]
        undo["409"] = _problem("Conflicting", "It was changed again since, or someone else was faster")
        ready = document["paths"]["/readyz"]["get"]["responses"]
        ready["503"] = {**ready["200"], "description": "It is starting"}
        return document


def _records(path: str) -> bool:
    """Whether what is sent there becomes events."""
    return path.startswith("/api/config/") and not path.endswith("/test")


def _complete(operation: Document, *, changes: bool) -> None:
    """Add what every route below /api has: problems; and what every change may carry."""
    responses = operation["responses"]
    responses["4XX"] = responses["5XX"] = _problem("ProblemDetails", "A problem (RFC 9457)")
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "model_id":
            parameter["schema"]["pattern"] = f"^{MODEL_ID.pattern}$"
    if changes:
        responses["412"] = _problem("Stale", "It changed meanwhile: what it is now")
        operation.setdefault("parameters", []).extend(CHANGE_PARAMETERS)


def _problem(name: str, description: str) -> Document:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": ref(name)}}}


def _optional(name: str, place: str, description: str) -> Document:
    schema = {"type": "string"}
    return {"name": name, "in": place, "required": False, "schema": schema, "description": description}


def _body(content: Mapping[str, str], *, required: bool = True) -> Document:
    schemas_by_type = {media_type: {"schema": ref(name)} for media_type, name in content.items()}
    return {"required": required, "content": schemas_by_type}


CHANGE_PARAMETERS: Final = (
    _optional("reason", "query", "Why; wins over the header."),
    _optional("X-Change-Reason", "header", "Why, in UTF-8."),
    _optional(
        "If-Match", "header", 'The version that the change builds on, such as "7"; 412 when it is another.'
    ),
    _optional("If-None-Match", "header", "`*`: only if there is no such model."),
    _optional("Idempotency-Key", "header", "Repeats of the request get the first answer, for 24 hours."),
)

BODIES: Final[Mapping[tuple[str, str], Document]] = {
    ("post", MODEL): _body({JSON: "ModelConfig"}),
    ("put", MODEL): _body({JSON: "ModelConfig"}),
    ("patch", MODEL): _body({MERGE_PATCH: "MergePatch", JSON_PATCH: "JsonPatch"}),
    ("post", f"{MODEL}/rollback"): _body({JSON: "Rollback"}),
    ("post", f"{MODEL}/undo"): _body({JSON: "Undo"}),
    ("post", f"{MODEL}/restore"): _body({JSON: "Restoration"}, required=False),
    ("post", f"{MODEL}/test"): _body({JSON: "ModelConfig"}, required=False),
    SIGN_IN: _body({JSON: "SignIn"}),
    ("put", "/api/config/default"): _body({JSON: "DefaultChoice"}),
}

CONTENTS: Final[Mapping[tuple[str, str], Document]] = {
    # answers of several kinds, of which Litestar tells none
    ("get", MODEL): {JSON: {"schema": ref("ModelView")}},
    ("post", f"{MODEL}/rollback"): {JSON: {"schema": {"anyOf": [ref("Receipt"), ref("Preview")]}}},
    ("post", f"{MODEL}/undo"): {JSON: {"schema": {"anyOf": [ref("Receipt"), ref("UndoPreview")]}}},
    ("get", "/api/config/events"): {
        JSON: {"schema": ref("Page")},
        JSON_LINES: {"schema": {"type": "string", "description": "An `Entry` a line."}},
        CSV: {
            "schema": {
                "type": "string",
                "description": "A line that names the columns, then an entry a line.",
            }
        },
    },
    ("get", "/api/config/events/stream"): {
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "`id` is the position, `event` the type, `data` an `Entry`. `reset` says that "
                "the ledger is shorter than the position that was named: read everything anew.",
            }
        }
    },
}
