"""Usage: one row a call, beside the ledger: no event, no chain, and gone after a while."""

from alembic import op

revision = "0002"
down_revision = "0001"

# Wide columns first, as they would be padded elsewhere.
USAGE = """
CREATE TABLE usage (
    started_at    timestamptz NOT NULL,
    duration      real        NOT NULL, -- seconds
    first_byte    real,                 -- seconds
    version       int         NOT NULL,
    input_tokens  int,
    output_tokens int,
    status        smallint    NOT NULL,
    attempts      smallint    NOT NULL,
    stream        boolean     NOT NULL,
    operation     text        NOT NULL,
    model_id      text        NOT NULL,
    asked         text,                 -- NULL: by the model's own id
    caller        text        NOT NULL, -- the actor's id
    error         text
)
"""

# The last batch of each process that writes, so that one whose answer was lost is not written twice.
USAGE_WRITER = """
CREATE TABLE usage_writer (
    id       uuid        PRIMARY KEY,
    batch    bigint      NOT NULL,
    wrote_at timestamptz NOT NULL
)
"""


def upgrade() -> None:
    for statement in (
        USAGE,
        # Serves the questions about one model and the removal of what is old, model by model.
        "CREATE INDEX usage_model ON usage (model_id, started_at)",
        USAGE_WRITER,
    ):
        op.execute(statement.replace(":", "\\:"))


def downgrade() -> None:
    op.execute("DROP TABLE usage, usage_writer")
