"""The ledger: the append-only table of events, its head, the append, and the projection."""

from alembic import op

revision = "0001"
down_revision = None

HEAD = """
CREATE TABLE ledger_head (
    one         boolean     PRIMARY KEY DEFAULT true CHECK (one),
    epoch       uuid        NOT NULL DEFAULT gen_random_uuid(), -- another one: another history
    position    bigint      NOT NULL DEFAULT 0,
    hash        bytea       NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    recorded_at timestamptz NOT NULL DEFAULT '-infinity'
)
"""

# The ledger itself. One row a fact, never changed, never removed.
EVENT = """
CREATE TABLE event (
    position       bigint      PRIMARY KEY CHECK (position >= 1), -- from ledger_head: gapless, in commit order
    event_id       uuid        NOT NULL UNIQUE,                   -- identity, never order
    stream         text        NOT NULL,
    version        int         NOT NULL CHECK (version >= 1),
    type           text        NOT NULL,
    schema_version smallint    NOT NULL,
    body           json,                                          -- json keeps the exact bytes, jsonb would not
    body_salt      bytea,
    body_digest    bytea       NOT NULL,
    actor          text        NOT NULL,
    actor_name     text,
    reason         text,
    meta           json        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    prev_hash      bytea       NOT NULL,
    hash           bytea       NOT NULL UNIQUE,
    CONSTRAINT event_stream_version UNIQUE (stream, version)      -- the optimistic lock
)
"""

APPEND_ONLY = """
CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$
"""

APPEND_ONLY_TRIGGER = """
CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()
"""

IDEMPOTENCY = """
CREATE TABLE idempotency (
    actor       text        NOT NULL,
    method      text        NOT NULL,
    path        text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    answer      json        NOT NULL,
    position    bigint,                 -- NULL when nothing changed
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (actor, method, path, key)
)
"""

# The projection: current state, one row a model; deleted ones are kept and marked.
MODEL = """
CREATE TABLE model (
    id          text        PRIMARY KEY,
    config      json        NOT NULL,
    deleted     boolean     NOT NULL,
    version     int         NOT NULL,
    position    bigint      NOT NULL,
    updated_at  timestamptz NOT NULL,
    actor       text        NOT NULL,
    actor_name  text,
    actor_kind  text        NOT NULL
)
"""

DEFAULT_MODEL = """
CREATE TABLE default_model (
    one         boolean     PRIMARY KEY DEFAULT true CHECK (one),
    model_id    text,
    version     int         NOT NULL DEFAULT 0,
    position    bigint      NOT NULL DEFAULT 0
)
"""

ACCESS_TOKEN = """
CREATE TABLE access_token (
    id          text        PRIMARY KEY,
    name        text        NOT NULL,
    role        text        NOT NULL,
    hash        bytea       NOT NULL UNIQUE, -- SHA-256 of the token
    created_at  timestamptz NOT NULL DEFAULT now()
)
"""

# What an installation settles once and keeps, such as the address of its demo upstream.
SETTING = "CREATE TABLE setting (key text PRIMARY KEY, value json NOT NULL)"

FIELD = """
CREATE FUNCTION ledger_field(value bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN value IS NULL THEN '\\xffffffff'::bytea ELSE int4send(octet_length(value)) || value END
$$
"""

# The append: everything that needs the lock, in one round trip; COMMIT follows at once.
APPEND = """
CREATE FUNCTION ledger_append(
    event_ids uuid[], streams text[], versions int[], types text[], schema_versions smallint[],
    bodies text[], salts bytea[], actor text, actor_name text, reason text, meta text,
    expected_streams text[], expected_versions int[],
    model_ids text[], configs text[], deleted boolean[],
    method text, path text, key text, fingerprint bytea, answer text
) RETURNS TABLE (outcome text, detail text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_variable
DECLARE
    head ledger_head%ROWTYPE;
    stored idempotency%ROWTYPE;
    stale text;
    kind text := meta::json ->> 'actor_kind';
    digest bytea;
    previous bytea;
BEGIN
    SELECT * INTO head FROM ledger_head FOR UPDATE;
    IF key IS NOT NULL THEN
        SELECT * INTO stored FROM idempotency i
            WHERE i.actor = ledger_append.actor AND i.method = ledger_append.method
              AND i.path = ledger_append.path AND i.key = ledger_append.key AND i.expires_at > now();
        IF FOUND THEN
            RETURN QUERY SELECT CASE WHEN stored.fingerprint = fingerprint THEN 'answered' ELSE 'mismatch' END,
                stored.answer::text;
            RETURN;
        END IF;
    END IF;
    SELECT e.stream INTO stale FROM unnest(expected_streams, expected_versions) AS e (stream, version)
        WHERE e.version <> coalesce((SELECT max(v.version) FROM event v WHERE v.stream = e.stream), 0) LIMIT 1;
    IF FOUND THEN
        RETURN QUERY SELECT 'stale', stale;
        RETURN;
    END IF;
    -- Monotone in the position, also when the server's clock goes back.
    head.recorded_at := greatest(clock_timestamp(), head.recorded_at);
    FOR n IN 1 .. cardinality(event_ids) LOOP
        previous := head.hash;
        head.position := head.position + 1;
        digest := sha256(ledger_field(salts[n]) || ledger_field(convert_to(bodies[n], 'UTF8'))
            || ledger_field(convert_to(reason, 'UTF8')) || ledger_field(convert_to(actor_name, 'UTF8')));
        head.hash := sha256(ledger_field('model-ledger/sha256/1'::bytea) || ledger_field(previous)
            || ledger_field(int8send(head.position)) || ledger_field(uuid_send(event_ids[n]))
            || ledger_field(convert_to(streams[n], 'UTF8')) || ledger_field(int4send(versions[n]))
            || ledger_field(convert_to(types[n], 'UTF8')) || ledger_field(int2send(schema_versions[n]))
            || ledger_field(digest) || ledger_field(convert_to(actor, 'UTF8'))
            || ledger_field(convert_to(meta, 'UTF8'))
            || ledger_field(int8send((extract(epoch FROM head.recorded_at) * 1000000)::bigint)));
        INSERT INTO event VALUES (head.position, event_ids[n], streams[n], versions[n], types[n],
            schema_versions[n], bodies[n]::json, salts[n], digest, actor, actor_name, reason, meta::json,
            head.recorded_at, previous, head.hash);
        IF streams[n] = 'default' THEN
            UPDATE default_model d SET model_id = model_ids[n], version = versions[n], position = head.position;
        ELSE
            INSERT INTO model AS m VALUES (model_ids[n], configs[n]::json, deleted[n], versions[n],
                head.position, head.recorded_at, actor, actor_name, kind)
            ON CONFLICT ON CONSTRAINT model_pkey DO UPDATE SET (config, deleted, version, position,
                updated_at, actor, actor_name, actor_kind) = ROW (excluded.config, excluded.deleted,
                excluded.version, excluded.position, excluded.updated_at, excluded.actor,
                excluded.actor_name, excluded.actor_kind);
        END IF;
    END LOOP;
    IF cardinality(event_ids) > 0 THEN
        UPDATE ledger_head h SET position = head.position, hash = head.hash, recorded_at = head.recorded_at;
        answer := (answer::jsonb || jsonb_build_object(
            'position', head.position, 'hash', encode(head.hash, 'hex')))::text;
        PERFORM pg_notify('model_ledger', head.position::text);
    END IF;
    IF key IS NOT NULL THEN
        DELETE FROM idempotency i WHERE i.ctid IN (
            SELECT x.ctid FROM idempotency x WHERE x.expires_at <= now() LIMIT 100);
        -- The key itself may be one of the expired ones that are still there.
        INSERT INTO idempotency VALUES (actor, method, path, key, fingerprint, answer::json,
            CASE WHEN cardinality(event_ids) > 0 THEN head.position END, now() + interval '24 hours')
        ON CONFLICT ON CONSTRAINT idempotency_pkey DO UPDATE SET (fingerprint, answer, position, expires_at)
            = ROW (excluded.fingerprint, excluded.answer, excluded.position, excluded.expires_at);
    END IF;
    RETURN QUERY SELECT 'appended', answer;
END $$
"""

# The projection from the events. Every event carries the whole state after it, so that the newest one of a
# stream is enough; they are found by leaps through the index on (stream, version), not by reading all events.
REBUILD = """
CREATE FUNCTION ledger_rebuild() RETURNS TABLE (models bigint, changed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
#variable_conflict use_column
BEGIN
    -- Appends wait from here on, and the next statement sees all that were before.
    PERFORM FROM ledger_head FOR UPDATE;
    WITH RECURSIVE streams AS (
        (SELECT e.stream FROM event e ORDER BY e.stream LIMIT 1)
        UNION ALL
        SELECT following.stream FROM streams s CROSS JOIN LATERAL (
            SELECT e.stream FROM event e WHERE e.stream > s.stream ORDER BY e.stream LIMIT 1) following
    ), newest AS MATERIALIZED (
        SELECT e.* FROM streams s CROSS JOIN LATERAL (
            SELECT * FROM event WHERE stream = s.stream ORDER BY version DESC LIMIT 1) e
    ), states AS MATERIALIZED (
        SELECT substr(e.stream, 7) AS id, e.body -> 'config' AS config, e.type = 'model.deleted' AS deleted,
            e.version, e.position, e.recorded_at, e.actor, e.actor_name, e.meta ->> 'actor_kind' AS actor_kind,
            -- What a newer release recorded stays as that release left it.
            e.schema_version = 1 AND e.type IN ('model.created', 'model.updated', 'model.deleted',
                'model.rolled_back', 'model.restored') AS known
        FROM newest e WHERE starts_with(e.stream, 'model/')
    ), removed AS (
        DELETE FROM model m WHERE NOT EXISTS (SELECT FROM states s WHERE s.id = m.id) RETURNING 1
    ), written AS (
        INSERT INTO model AS m SELECT id, config, deleted, version, position, recorded_at, actor, actor_name,
            actor_kind FROM states WHERE known
        ON CONFLICT ON CONSTRAINT model_pkey DO UPDATE SET (config, deleted, version, position,
            updated_at, actor, actor_name, actor_kind) = ROW (excluded.config, excluded.deleted,
            excluded.version, excluded.position, excluded.updated_at, excluded.actor,
            excluded.actor_name, excluded.actor_kind)
        WHERE (m.config::text, m.deleted, m.version, m.position, m.updated_at, m.actor, m.actor_name,
            m.actor_kind) IS DISTINCT FROM (excluded.config::text, excluded.deleted, excluded.version,
            excluded.position, excluded.updated_at, excluded.actor, excluded.actor_name, excluded.actor_kind)
        RETURNING 1
    ), pointer AS (
        INSERT INTO default_model AS d SELECT true, e.body ->> 'model_id', coalesce(e.version, 0),
            coalesce(e.position, 0)
        FROM (VALUES ('default')) AS wanted (stream) LEFT JOIN newest e USING (stream)
        WHERE e.stream IS NULL OR (e.type = 'default.changed' AND e.schema_version = 1)
        ON CONFLICT ON CONSTRAINT default_model_pkey DO UPDATE SET (model_id, version, position)
            = ROW (excluded.model_id, excluded.version, excluded.position)
        WHERE (d.model_id, d.version, d.position)
            IS DISTINCT FROM (excluded.model_id, excluded.version, excluded.position)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM written) + (SELECT count(*) FROM pointer)
        INTO changed;
    IF changed > 0 THEN
        -- Workers hold what they read from these rows; another epoch makes them read anew.
        UPDATE ledger_head h SET epoch = gen_random_uuid();
        PERFORM pg_notify('model_ledger', 'rebuilt');
    END IF;
    RETURN QUERY SELECT count(*), changed FROM model;
END $$
"""

# Positions and times rise together, so the last position of an instant is found by halving.
POSITION_AT = """
CREATE FUNCTION ledger_position_at(instant timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
BEGIN
    SELECT h.position INTO high FROM ledger_head h;
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF (SELECT e.recorded_at <= instant FROM event e WHERE e.position = middle) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$
"""


def upgrade() -> None:
    for statement in (
        HEAD,
        "INSERT INTO ledger_head DEFAULT VALUES",
        EVENT,
        APPEND_ONLY,
        APPEND_ONLY_TRIGGER,
        "ALTER TABLE event ENABLE ALWAYS TRIGGER event_append_only",
        IDEMPOTENCY,
        "CREATE INDEX idempotency_expiry ON idempotency (expires_at)",
        MODEL,
        DEFAULT_MODEL,
        "INSERT INTO default_model DEFAULT VALUES",
        ACCESS_TOKEN,
        SETTING,
        FIELD,
        APPEND,
        "REVOKE ALL ON FUNCTION ledger_append FROM PUBLIC",
        REBUILD,
        "REVOKE ALL ON FUNCTION ledger_rebuild FROM PUBLIC",
        POSITION_AT,
    ):
        op.execute(statement.replace(":", "\\:"))


def downgrade() -> None:
    raise RuntimeError("the ledger is append-only: there is no way down from its first revision")
