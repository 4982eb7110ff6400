-- name: diagnosis
-- What an operator should know of the server: one row.
SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
       current_setting('max_connections')::int AS connections_allowed,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int AS connections,
       pg_database_size(current_database()) AS bytes, current_setting('synchronous_standby_names') AS standbys,
       current_setting('synchronous_commit') AS commits, to_regclass('public._pogo_migration') IS NOT NULL AS is_migrated;

-- name: migrations_applied
-- The names of migrations that the schema has.
SELECT migration_id FROM public._pogo_migration WHERE schema_name = 'public';
