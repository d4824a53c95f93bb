"""The workers that serve the ledger, each with the position that it is live at."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Unlogged: it says what is now, and after a crash nothing is.
WORKER = """
CREATE UNLOGGED TABLE worker (
    id          uuid        PRIMARY KEY,
    position    bigint      NOT NULL,
    status      text        NOT NULL,
    follower    text        NOT NULL,
    degraded    text[]      NOT NULL,
    started_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL
)
"""


def upgrade() -> None:
    op.execute(WORKER)


def downgrade() -> None:
    op.execute("DROP TABLE worker")
