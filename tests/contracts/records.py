"""Records of calls: made up where a test does not care."""

from datetime import UTC, datetime
from typing import Any

from application.ports import CallRecord, Tokens
from domain.values import Actor, ModelId

ANNA = Actor("token:anna", "Anna", "token")


def call(**changes: Any) -> CallRecord:
    fields = {
        "model_id": ModelId("gpt-4"),
        "version": 1,
        "asked": "gpt-4",
        "caller": ANNA,
        "operation": "chat",
        "stream": False,
        "status": 200,
        "error": None,
        "attempts": 1,
        "started_at": datetime.now(UTC),
        "first_byte": 0.5,
        "duration": 1.5,
        "tokens": Tokens(10, 20),
    }
    return CallRecord(**{**fields, **changes})
