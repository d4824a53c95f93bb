"""Names: what live models answer to, and who stands in for whom, as the ledger's decisions see them."""

from alembic import op

revision = "0003"
down_revision = "0002"

# Of the configuration; NULL where it has none, so that only the models that have some are looked through.
LINKS = "ALTER TABLE model ADD COLUMN aliases jsonb, ADD COLUMN fallbacks jsonb"

LINKED = """
CREATE INDEX model_linked ON model (id)
    WHERE NOT deleted AND (aliases IS NOT NULL OR fallbacks IS NOT NULL)
"""

# Whoever writes the row; generated columns would cost each append several times as much. A text that does not
# hold a field's name is not parsed: most do not.
DERIVE = """
CREATE FUNCTION model_derive_links() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    new.aliases := CASE WHEN strpos(new.config::text, '"aliases"') > 0
        THEN nullif((new.config -> 'aliases')::jsonb, '[]') END;
    new.fallbacks := CASE WHEN strpos(new.config::text, '"fallbacks"') > 0
        THEN nullif((new.config -> 'fallbacks')::jsonb, '[]') END;
    RETURN new;
END $$
"""
DERIVED = """
CREATE TRIGGER model_links_derived BEFORE INSERT OR UPDATE ON model
    FOR EACH ROW EXECUTE FUNCTION model_derive_links()
"""

# The rules are the domain's, which tells the reason. This only catches decisions that raced one another: an
# append holds the head's lock, so that what is seen here cannot change any more. As there, only what is newly
# named counts, and what was recorded is not refused when its row is made anew.
CHECK = """
CREATE FUNCTION model_check_links() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    names text[];
    edges text[];
BEGIN
    IF new.deleted OR (NOT old.deleted AND new.aliases IS NOT DISTINCT FROM old.aliases
            AND new.fallbacks IS NOT DISTINCT FROM old.fallbacks)
        OR new.position <= (SELECT h.position FROM ledger_head h)
    THEN
        RETURN NULL;
    END IF;
    names := ARRAY(SELECT jsonb_array_elements_text(new.aliases)
        EXCEPT SELECT jsonb_array_elements_text(old.aliases) WHERE NOT old.deleted);
    edges := ARRAY(SELECT jsonb_array_elements_text(new.fallbacks)
        EXCEPT SELECT jsonb_array_elements_text(old.fallbacks) WHERE NOT old.deleted);
    IF old.deleted IS NOT FALSE THEN
        names := names || new.id;
    END IF;
    PERFORM FROM model m WHERE NOT m.deleted AND m.id <> new.id AND m.id = ANY (names);
    IF NOT FOUND THEN
        PERFORM FROM model m WHERE NOT m.deleted AND m.id <> new.id AND m.aliases ?| names;
    END IF;
    IF NOT FOUND AND cardinality(edges) > 0 THEN
        PERFORM FROM (
            WITH RECURSIVE reached (id) AS (
                SELECT unnest(edges)
                UNION
                SELECT named.id FROM reached r JOIN model m ON m.id = r.id AND NOT m.deleted
                    CROSS JOIN jsonb_array_elements_text(m.fallbacks) AS named (id)
            )
            SELECT id FROM reached) way WHERE way.id = new.id;
    END IF;
    IF FOUND THEN
        RAISE EXCEPTION 'another live model has a name of %, or falls back to it', new.id
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'model_links';
    END IF;
    RETURN NULL;
END $$
"""
# After the statement, when all its rows are what they are to be.
CHECKED = """
CREATE TRIGGER model_links_checked AFTER INSERT OR UPDATE ON model
    FOR EACH ROW EXECUTE FUNCTION model_check_links()
"""


def upgrade() -> None:
    for statement in (
        LINKS,
        LINKED,
        DERIVE,
        DERIVED,
        "UPDATE model SET config = config",
        CHECK,
        CHECKED,
    ):
        op.execute(statement.replace(":", "\\:"))


def downgrade() -> None:
    op.execute("DROP TRIGGER model_links_checked ON model")
    op.execute("DROP TRIGGER model_links_derived ON model")
    op.execute("DROP FUNCTION model_check_links, model_derive_links")
    op.execute("ALTER TABLE model DROP COLUMN aliases, DROP COLUMN fallbacks")
