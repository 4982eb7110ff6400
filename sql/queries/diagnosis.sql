-- name: diagnosis
-- What an operator should know of the server: one row.
SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
       current_setting('max_connections')::int AS connections_allowed,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int AS connections,
       pg_database_size(current_database()) AS bytes, current_setting('synchronous_standby_names') AS standbys,
       current_setting('synchronous_commit') AS commits, to_regclass('public._pogo_migration') IS NOT NULL AS is_migrated,
       -- NULL where this role may not see it.
       (SELECT CASE WHEN count(*) = count(state) THEN count(*) FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')) END
        FROM pg_stat_replication)::int AS standbys_there;

-- name: commits_waiting
-- How many commits wait for a synchronous standby, and for how many seconds the oldest has.
SELECT count(*)::int AS waiting,
       coalesce(extract(epoch FROM clock_timestamp() - min(query_start)), 0)::float8 AS seconds
FROM pg_stat_activity WHERE wait_event = 'SyncRep';

-- name: migrations_applied
-- The names of migrations that the schema has.
SELECT migration_id FROM public._pogo_migration WHERE schema_name = 'public';
