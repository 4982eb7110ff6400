-- which past the ledger goes on from: noticed after a restore, and which content of the store is current
-- depends: 0002_revoked_tokens

-- migrate: apply
-- A backup from before this migration leaves these where they are when it is restored.
CREATE TABLE IF NOT EXISTS generation (
    one           BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    -- by chance, anew with each restore: what tokens carry
    mark          TEXT,
    -- tokens without a mark count if they were issued after that; NULL: there was no restore
    restored_at   TIMESTAMPTZ,
    -- where this row was written; elsewhere it is a copy. NULL: nobody has served from it yet
    place         TEXT,
    -- where versions of closed weeks and numbers of epochs begin: beyond all that was given out before the restore
    first_version BIGINT NOT NULL DEFAULT 1,
    first_epoch   BIGINT NOT NULL DEFAULT 0,
    -- the store's content that is current, by its epoch; '' none is: it must be made anew; NULL: nobody has said so yet
    epoch         TEXT,
    -- fencing numbers: the last one given out to whoever makes content, and that of the content above
    claims        BIGINT NOT NULL DEFAULT 0,
    claim         BIGINT NOT NULL DEFAULT 0,
    -- when somebody last used that content
    used_at       TIMESTAMPTZ,
    -- the epoch of other content that a process reaches in its place, and when it said so last
    stray         TEXT,
    stray_at      TIMESTAMPTZ
);
INSERT INTO generation DEFAULT VALUES ON CONFLICT DO NOTHING;

-- What differs between a ledger and any copy of it that serves: the cluster, the database, the table (each restore of a dump
-- makes a new one), and at the end the timeline (each promotion begins a new one). NULL on a standby.
CREATE OR REPLACE FUNCTION ledger_place() RETURNS TEXT LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN concat_ws(':',
        (SELECT system_identifier FROM pg_control_system()),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        'users'::regclass::oid,
        left(pg_walfile_name(pg_current_wal_lsn()), 8)
    ) END
$$;

-- Whether the ledger is known to be where it was: nothing that must never be given out twice is given out before that.
CREATE OR REPLACE FUNCTION ledger_is_in_place() RETURNS BOOLEAN LANGUAGE sql VOLATILE AS $$
    SELECT NOT EXISTS (SELECT FROM generation WHERE place <> ledger_place())
$$;

-- A closed week whose row is new begins beyond every version that one of the same week may have had.
CREATE OR REPLACE FUNCTION begin_closed_week() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := greatest(NEW.version, (SELECT first_version FROM generation));
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER closed_weeks_begin BEFORE INSERT ON closed_weeks
    FOR EACH ROW EXECUTE FUNCTION begin_closed_week();

-- migrate: rollback
DROP TRIGGER closed_weeks_begin ON closed_weeks;
DROP FUNCTION begin_closed_week(), ledger_is_in_place(), ledger_place();
DROP TABLE generation;
