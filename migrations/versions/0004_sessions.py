"""Sessions of the browser application, and the links that open one; both beside the ledger."""

from alembic import op

revision = "0004"
down_revision = "0003"

SESSION = """
CREATE TABLE session (
    hash        bytea       PRIMARY KEY,            -- SHA-256 of what the cookie holds
    token_hash  bytea       NOT NULL,               -- of the token that it stands for; without it, it is void
    created_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
)
"""

SIGN_IN_LINK = """
CREATE TABLE sign_in_link (
    hash        bytea       PRIMARY KEY,            -- SHA-256 of its one-time code
    token_hash  bytea       NOT NULL,
    expires_at  timestamptz NOT NULL
)
"""


def upgrade() -> None:
    for statement in (SESSION, SIGN_IN_LINK):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE session, sign_in_link")
