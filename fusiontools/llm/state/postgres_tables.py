"""The tables of the shared state in PostgreSQL, and the functions that the database runs whole."""

from __future__ import annotations

from fusiontools.llm.state.store import DONE_S, KEPT_S, TRUSTED_S

#: Of the tables and functions below; another one makes them anew.
VERSION = 2

_TABLES = """
CREATE TABLE IF NOT EXISTS NS.completion (
    key bytea PRIMARY KEY, created_s float8 NOT NULL, endpoint text NOT NULL, model text NOT NULL, body bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS completion_created ON NS.completion (created_s);
CREATE SEQUENCE IF NOT EXISTS NS.fence;
CREATE TABLE IF NOT EXISTS NS.lease (
    key bytea PRIMARY KEY, fence bigint NOT NULL, ends timestamptz NOT NULL, done boolean NOT NULL
);
CREATE INDEX IF NOT EXISTS lease_ends ON NS.lease (ends);
CREATE TABLE IF NOT EXISTS NS.granted (
    id text PRIMARY KEY, name text NOT NULL, owner text NOT NULL, count bigint NOT NULL, ends timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS granted_name ON NS.granted (name, ends);
CREATE TABLE IF NOT EXISTS NS.held (
    name text, owner text, count bigint NOT NULL, wanted bigint NOT NULL, ends timestamptz NOT NULL,
    PRIMARY KEY (name, owner)
);
CREATE TABLE IF NOT EXISTS NS.value (name text PRIMARY KEY, value bytea NOT NULL, ends timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS value_ends ON NS.value (ends);
CREATE TABLE IF NOT EXISTS NS.purse (name text PRIMARY KEY, spent bigint NOT NULL, used timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS NS.reservation (
    id text PRIMARY KEY, purses text[] NOT NULL, nano bigint NOT NULL, endpoint text NOT NULL, model text NOT NULL,
    ends timestamptz NOT NULL, swept boolean NOT NULL
);
CREATE INDEX IF NOT EXISTS reservation_ends ON NS.reservation (swept, ends);
CREATE TABLE IF NOT EXISTS NS.endpoint (name text PRIMARY KEY, at_once bigint NOT NULL, used timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS NS.model (
    endpoint text, name text, excess float8 NOT NULL, least_nano bigint NOT NULL, used timestamptz NOT NULL,
    PRIMARY KEY (endpoint, name)
);
CREATE SEQUENCE IF NOT EXISTS NS.changes;
CREATE TABLE IF NOT EXISTS NS.note (name text, number bigint, body bytea NOT NULL, PRIMARY KEY (name, number));
CREATE TABLE IF NOT EXISTS NS.version (number int NOT NULL);
"""
_CALLS = """
CREATE OR REPLACE FUNCTION NS.acquire(
    k bytea, lease_s float8, waited bigint, replays boolean, OUT what text, OUT fence bigint
) LANGUAGE plpgsql AS $$
DECLARE last NS.lease;
BEGIN
    SELECT * INTO last FROM NS.lease l WHERE l.key = k;
    IF FOUND AND NOT last.done AND last.ends > clock_timestamp() THEN
        what := 'held'; fence := last.fence; RETURN;
    END IF;
    LOOP
        SELECT * INTO last FROM NS.lease l WHERE l.key = k FOR UPDATE;
        IF FOUND AND last.done AND waited > 0 AND waited <= last.fence THEN what := 'done'; RETURN; END IF;
        IF FOUND AND NOT last.done AND last.ends > clock_timestamp() THEN
            what := 'held'; fence := last.fence; RETURN;
        END IF;
        IF replays AND EXISTS (SELECT 1 FROM NS.completion c WHERE c.key = k) THEN what := 'done'; RETURN; END IF;
        fence := nextval('NS.fence');
        IF last.key IS NOT NULL THEN
            UPDATE NS.lease l SET fence = acquire.fence, done = false,
                ends = clock_timestamp() + make_interval(secs => lease_s) WHERE l.key = k;
            what := 'lease'; RETURN;
        END IF;
        INSERT INTO NS.lease VALUES (k, fence, clock_timestamp() + make_interval(secs => lease_s), false)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN what := 'lease'; RETURN; END IF;
    END LOOP;
END $$;
CREATE OR REPLACE FUNCTION NS.keep(
    keys bytea[], created float8[], endpoints text[], models text[], bodies bytea[], fences bigint[], done_s float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE call record; in_time boolean;
BEGIN
    -- In the order of the keys, so that two who keep several never wait for each other.
    FOR call IN SELECT * FROM unnest(keys, created, endpoints, models, bodies, fences)
        AS c (key, created_s, endpoint, model, body, fence) ORDER BY c.key
    LOOP
        in_time := call.fence IS NULL;
        IF NOT in_time THEN
            UPDATE NS.lease l SET done = true, ends = clock_timestamp() + make_interval(secs => done_s)
                WHERE l.key = call.key AND l.fence = call.fence AND NOT l.done;
            in_time := FOUND;
        END IF;
        IF in_time THEN
            INSERT INTO NS.completion VALUES (call.key, call.created_s, call.endpoint, call.model, call.body)
                ON CONFLICT (key) DO UPDATE SET created_s = excluded.created_s, endpoint = excluded.endpoint,
                model = excluded.model, body = excluded.body;
        ELSE
            INSERT INTO NS.completion VALUES (call.key, call.created_s, call.endpoint, call.model, call.body)
                ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
END $$;
CREATE OR REPLACE FUNCTION NS.noting(called text, said bytea, keep_s float8) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE now_ bigint; made bigint;
BEGIN
    -- One after another, so that nobody reads a later one before an earlier one is there. A number is a time in
    -- microseconds, so that a schema that is made anew goes on behind the old one.
    PERFORM pg_advisory_xact_lock(hashtextextended('NS note ' || called, 0));
    now_ := floor(extract(epoch FROM clock_timestamp()) * 1e6);
    made := greatest(now_, 1 + coalesce((SELECT max(n.number) FROM NS.note n WHERE n.name = called), 0));
    INSERT INTO NS.note VALUES (called, made, said);
    DELETE FROM NS.note n WHERE n.name = called AND n.number < now_ - keep_s * 1e6;
    RETURN made;
END $$;
CREATE OR REPLACE FUNCTION NS.granting(
    made text, limited text, who text, fewest bigint, most bigint, lim bigint, window_s float8, valid_s float8,
    OUT amount bigint, OUT wait_s float8, OUT workers bigint
) LANGUAGE plpgsql AS $$
DECLARE used bigint; known bigint; over bigint; part record; now_ timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('NS limit ' || limited, 0));
    now_ := clock_timestamp();
    DELETE FROM NS.granted g WHERE g.name = limited AND g.ends <= now_;
    SELECT coalesce(sum(g.count), 0), count(DISTINCT g.owner), count(*) FILTER (WHERE g.owner = who)
        INTO used, workers, known FROM NS.granted g WHERE g.name = limited;
    IF known = 0 THEN workers := workers + 1; END IF;
    amount := 0; wait_s := 0;
    IF used > 0 AND used + fewest > lim THEN
        over := used + fewest - lim;
        FOR part IN SELECT g.count, g.ends FROM NS.granted g WHERE g.name = limited ORDER BY g.ends LOOP
            over := over - part.count;
            wait_s := extract(epoch FROM part.ends - now_);
            EXIT WHEN over <= 0;
        END LOOP;
        RETURN;
    END IF;
    amount := greatest(fewest, least(most, floor(lim * valid_s / window_s / workers)::bigint, lim - used));
    INSERT INTO NS.granted VALUES (made, limited, who, amount, now_ + make_interval(secs => valid_s + window_s));
END $$;
CREATE OR REPLACE FUNCTION NS.holding(
    limited text, who text, busy bigint, wants bigint, lim bigint, lease_s float8, OUT places bigint
) LANGUAGE plpgsql AS $$
DECLARE even bigint; remaining bigint; free bigint; now_ timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('NS limit ' || limited, 0));
    now_ := clock_timestamp();
    DELETE FROM NS.held h WHERE h.name = limited AND h.ends <= now_;
    SELECT greatest(1, lim / (count(*) + 1)) INTO even FROM NS.held h WHERE h.name = limited AND h.owner <> who;
    SELECT lim - coalesce(sum(greatest(h.count, least(h.wanted, even))), 0), lim - coalesce(sum(h.count), 0)
        INTO remaining, free FROM NS.held h WHERE h.name = limited AND h.owner <> who;
    places := least(wants, greatest(remaining, least(1, free)));
    IF wants > 0 THEN
        INSERT INTO NS.held VALUES (limited, who, greatest(busy, places), wants, now_ + make_interval(secs => lease_s))
            ON CONFLICT (name, owner) DO UPDATE SET count = excluded.count, wanted = excluded.wanted,
            ends = excluded.ends;
    ELSE
        DELETE FROM NS.held h WHERE h.name = limited AND h.owner = who;
    END IF;
END $$;
"""
_MONEY = """
CREATE OR REPLACE FUNCTION NS.spend(purse_ text, nano bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO NS.purse VALUES (purse_, greatest(0, nano), clock_timestamp())
        ON CONFLICT (name) DO UPDATE SET spent = greatest(0, NS.purse.spent + nano), used = excluded.used;
$$;
CREATE OR REPLACE FUNCTION NS.sweep() RETURNS void LANGUAGE plpgsql AS $$
DECLARE over record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('NS money', 0));
    FOR over IN UPDATE NS.reservation SET swept = true WHERE NOT swept AND ends < clock_timestamp() RETURNING * LOOP
        PERFORM NS.spend(p, over.nano) FROM unnest(over.purses) AS p;
        PERFORM nextval('NS.changes');
    END LOOP;
END $$;
CREATE OR REPLACE FUNCTION NS.reserve(
    made text, endpoint_ text, model_ text, bound bigint, lease_s float8, names text[], limits bigint[],
    OUT what text, OUT short text, OUT spent_ bigint, OUT nano_ bigint
) LANGUAGE plpgsql AS $$
DECLARE at_once_ bigint; excess_ float8 := 1; least_ bigint := 0; known boolean; flying bigint; to_model bigint;
    wait boolean; part record;
BEGIN
    PERFORM NS.sweep();
    SELECT at_once INTO at_once_ FROM NS.endpoint
        WHERE name = endpoint_ AND used > clock_timestamp() - make_interval(secs => :trusted);
    SELECT excess, least_nano INTO excess_, least_ FROM NS.model
        WHERE endpoint = endpoint_ AND name = model_ AND used > clock_timestamp() - make_interval(secs => :trusted);
    known := FOUND;
    nano_ := greatest(ceil(bound * coalesce(excess_, 1))::bigint, coalesce(least_, 0));
    SELECT count(*), count(*) FILTER (WHERE model = model_) INTO flying, to_model
        FROM NS.reservation WHERE NOT swept AND endpoint = endpoint_;
    wait := flying >= coalesce(at_once_, 1) OR (NOT known AND to_model > 0);
    FOR part IN SELECT * FROM unnest(names, limits) AS u (name, lim) WHERE lim IS NOT NULL LOOP
        spent_ := coalesce((SELECT p.spent FROM NS.purse p WHERE p.name = part.name), 0);
        flying := coalesce((
            SELECT sum(r.nano) FROM NS.reservation r WHERE NOT r.swept AND part.name = ANY (r.purses)
        ), 0);
        IF spent_ + nano_ > part.lim THEN what := 'short'; short := part.name; RETURN; END IF;
        wait := wait OR (flying > 0 AND spent_ + 2 * flying + nano_ > part.lim);
    END LOOP;
    IF wait THEN what := 'wait'; RETURN; END IF;
    INSERT INTO NS.reservation VALUES (made, names, nano_, endpoint_, model_,
        clock_timestamp() + make_interval(secs => lease_s), false);
    what := 'made';
END $$;
CREATE OR REPLACE FUNCTION NS.settle(
    made text, paid bigint, answered boolean, bound bigint, names text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r NS.reservation; cost bigint; at_once_ bigint; excess_ float8; least_ bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('NS money', 0));
    IF made = '' THEN
        PERFORM NS.spend(p, coalesce(paid, 0)) FROM unnest(names) AS p;
    ELSE
        DELETE FROM NS.reservation WHERE id = made RETURNING * INTO r;
        IF NOT FOUND THEN RETURN; END IF;
        cost := coalesce(paid, r.nano);
        PERFORM NS.spend(p, CASE WHEN r.swept THEN cost - r.nano ELSE cost END) FROM unnest(r.purses) AS p;
        IF answered OR paid IS NULL OR paid > r.nano THEN
            SELECT at_once INTO at_once_ FROM NS.endpoint WHERE name = r.endpoint;
            SELECT excess, least_nano INTO excess_, least_ FROM NS.model WHERE endpoint = r.endpoint AND name = r.model;
            at_once_ := coalesce(at_once_, 1); excess_ := coalesce(excess_, 1); least_ := coalesce(least_, 0);
            IF paid > 0 THEN least_ := CASE WHEN least_ > 0 THEN least(least_, paid) ELSE paid END; END IF;
            IF paid IS NULL OR paid <= r.nano THEN
                at_once_ := at_once_ + 1;
            ELSE
                at_once_ := CASE WHEN paid <= 2 * r.nano THEN greatest(1, at_once_ / 2) ELSE 1 END;
                IF bound > 0 THEN excess_ := greatest(excess_, paid::float8 / bound); END IF;
            END IF;
            INSERT INTO NS.endpoint VALUES (r.endpoint, at_once_, clock_timestamp())
                ON CONFLICT (name) DO UPDATE SET at_once = excluded.at_once, used = excluded.used;
            INSERT INTO NS.model VALUES (r.endpoint, r.model, excess_, least_, clock_timestamp())
                ON CONFLICT (endpoint, name) DO UPDATE SET excess = excluded.excess, least_nano = excluded.least_nano,
                used = excluded.used;
        END IF;
    END IF;
    PERFORM nextval('NS.changes');
END $$;
CREATE OR REPLACE FUNCTION NS.committed(purse_ text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM NS.sweep();
    RETURN coalesce((SELECT spent FROM NS.purse WHERE name = purse_), 0)
        + coalesce((SELECT sum(nano) FROM NS.reservation WHERE NOT swept AND purse_ = ANY (purses)), 0);
END $$;
"""
PRUNE = """
WITH a AS (DELETE FROM NS.lease WHERE ends < clock_timestamp() - make_interval(secs => :done)),
    b AS (DELETE FROM NS.purse WHERE used < clock_timestamp() - make_interval(secs => :kept)),
    c AS (DELETE FROM NS.reservation WHERE swept AND ends < clock_timestamp() - make_interval(secs => :trusted)),
    d AS (DELETE FROM NS.value WHERE ends <= clock_timestamp()),
    e AS (DELETE FROM NS.granted WHERE ends <= clock_timestamp()),
    f AS (DELETE FROM NS.model WHERE used < clock_timestamp() - make_interval(secs => :trusted))
DELETE FROM NS.endpoint WHERE used < clock_timestamp() - make_interval(secs => :trusted)
"""


#: Ends with the transaction: one at a time makes the tables.
TURN = "SELECT pg_advisory_xact_lock(hashtextextended('NS tables', 0))"


def making(schema: str) -> str:
    """Return what makes the tables and functions, for a transaction that has the `TURN`."""
    return in_schema(
        schema,
        f"""
        DO $$ BEGIN IF to_regnamespace('NSname') IS NULL THEN CREATE SCHEMA NSname; END IF; END $$;
        {_TABLES} {_CALLS} {_MONEY}
        DELETE FROM NS.version; INSERT INTO NS.version VALUES ({VERSION});
        """,  # noqa: S608 - a name of letters
    )


def in_schema(schema: str, text: str) -> str:
    """Return SQL with the schema for each `NS`, and the bounds for their names."""
    for name, seconds in ((":done", DONE_S), (":kept", KEPT_S), (":trusted", TRUSTED_S)):
        text = text.replace(name, f"{seconds:.0f}")
    return text.replace("NSname", schema).replace("NS.", f"{schema}.").replace("'NS ", f"'{schema} ")
