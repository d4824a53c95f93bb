"""The mapped tables of the read side. Written by `ledger_append` and `rebuild` alone."""

from datetime import datetime

from advanced_alchemy.base import DefaultBase
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    LargeBinary,
    SmallInteger,
    Text,
    TypeDecorator,
    cast,
)
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Mapped, mapped_column


class JsonText(TypeDecorator[str]):
    """A `json` column read as the exact text that it holds, not as what a parser makes of it."""

    impl = Text
    cache_ok = True

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        """Have the server answer text."""
        return cast(column, Text)


class EventRow(DefaultBase):
    """One recorded event."""

    __tablename__ = "event"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_id: Mapped[str] = mapped_column(UUID(as_uuid=False), unique=True)
    stream: Mapped[str] = mapped_column(Text)
    version: Mapped[int]
    type: Mapped[str] = mapped_column(Text)
    schema_version: Mapped[int] = mapped_column(SmallInteger)
    body: Mapped[str | None] = mapped_column(JsonText)
    actor: Mapped[str] = mapped_column(Text)
    actor_name: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    meta: Mapped[str] = mapped_column(JsonText)
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class ModelRow(DefaultBase):
    """The current state of one model."""

    __tablename__ = "model"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    config: Mapped[str] = mapped_column(JsonText)
    deleted: Mapped[bool]
    version: Mapped[int]
    position: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    actor: Mapped[str] = mapped_column(Text)
    actor_name: Mapped[str | None] = mapped_column(Text)
    actor_kind: Mapped[str] = mapped_column(Text)


class DefaultRow(DefaultBase):
    """Which model is the default; one row."""

    __tablename__ = "default_model"

    one: Mapped[bool] = mapped_column(primary_key=True)
    model_id: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int]
    position: Mapped[int] = mapped_column(BigInteger)
