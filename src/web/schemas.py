"""The Structs of the contract as JSON Schema: requests with today's limits, answers as they are sent."""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from application.connection_test import ConnectionReport, ConnectionStep
from application.ports import Receipt
from application.rollback import Preview
from application.undo import UndoPreview
from application.usage import Percentiles, UsageView, VersionUsage
from application.views import Blame, DefaultView, Difference, Entry, ModelView, Page
from application.workers import Workers, WorkerView
from domain.changes import Conflict, FieldChange, PatchOperation
from domain.configuration import CONSTRAINTS, FIELDS
from web.health import Readiness
from web.history import Restoration, Rollback, Undo
from web.models import DefaultChoice
from web.problems import Conflicts, ProblemDetails
from web.sessions import SessionView, SignIn
from web.stale import Newer

Document = dict[str, Any]
"""A JSON object of the document; its shape is OpenAPI's."""

REF: Final = "#/components/schemas/{name}"
REQUESTS: Final = (DefaultChoice, Rollback, Restoration, SignIn, Undo)
ANSWERS: Final = (
    Blame,
    Conflict,
    Conflicts,
    ConnectionReport,
    DefaultView,
    Difference,
    Entry,
    FieldChange,
    ModelView,
    Newer,
    Page,
    PatchOperation,
    Percentiles,
    Preview,
    ProblemDetails,
    Readiness,
    Receipt,
    UsageView,
    VersionUsage,
    SessionView,
    ConnectionStep,
    UndoPreview,
    Workers,
    WorkerView,
)


def schemas() -> Document:
    """The components: requests with today's limits, answers as they are sent."""
    _, components = msgspec.json.schema_components([*REQUESTS, *ANSWERS], ref_template=REF)
    for kind in ANSWERS:
        _as_sent(components[kind.__name__], kind)
    # What was recorded once keeps the types, not today's limits.
    recorded = components.pop("ModelConfig")
    recorded["title"] = "RecordedConfig"
    recorded["required"] = [name for name, field in FIELDS.items() if field.default is not UNSET]
    _without_limits(recorded)
    components["Entry"]["properties"]["config"] = {"anyOf": [ref("RecordedConfig"), {"type": "null"}]}
    return {
        **components,
        "RecordedConfig": recorded,
        "ModelConfig": _model_config(),
        "MergePatch": _merge_patch(),
        "JsonPatch": JSON_PATCH_SCHEMA,
        "Conflicting": {"allOf": [ref("ProblemDetails"), ref("Conflicts")]},
        "Stale": {"allOf": [ref("ProblemDetails"), ref("Newer")]},
    }


def ref(name: str) -> Document:
    """A reference to one of them."""
    return {"$ref": REF.format(name=name)}


def _as_sent(schema: Document, kind: type[Struct]) -> None:
    """Tell an answer: what has a default is there all the same, and a later release may add fields."""
    if not kind.__struct_config__.omit_defaults:
        schema["required"] = [
            field.encode_name for field in msgspec.structs.fields(kind) if field.default is not UNSET
        ]
    for field in msgspec.structs.fields(kind):
        if field.type is datetime:
            schema["properties"][field.encode_name]["format"] = "date-time"
    _without_limits(schema)


def _without_limits(schema: Document) -> None:
    schema.pop("additionalProperties", None)
    for told in schema["properties"].values():
        told.pop("default", None)


def _model_config() -> Document:
    properties = {name: msgspec.json.schema(kind) for name, kind in CONSTRAINTS.items()}
    for name, field in FIELDS.items():
        if not field.required and field.default is not UNSET:
            properties[name]["default"] = field.default
    return {
        "title": "ModelConfig",
        "description": "A model's configuration, as POST and PUT take it.",
        "type": "object",
        "properties": properties,
        "required": [name for name, field in FIELDS.items() if field.required],
        "additionalProperties": False,
        "if": {"properties": {"provider": {"const": "openai"}}, "required": ["provider"]},
        "then": {"required": ["base_url"]},
        "else": {"required": ["azure_endpoint", "api_version"]},
    }


def _merge_patch() -> Document:
    nullable = {
        name: {"anyOf": [msgspec.json.schema(kind), {"type": "null"}]} for name, kind in CONSTRAINTS.items()
    }
    return {
        "title": "MergePatch",
        "description": "The fields to change (RFC 7396); null removes one, so that it takes its default.",
        "type": "object",
        "properties": nullable,
        "additionalProperties": False,
    }


JSON_PATCH_SCHEMA: Final[Document] = {
    "title": "JsonPatch",
    "description": "Operations on the configuration, all of them or none (RFC 6902).",
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
            "path": {"type": "string"},
            "from": {"type": "string"},
            "value": {},
        },
        "required": ["op", "path"],
    },
}
