-- name: judged
-- What the server at the other end of a connection says of itself: what time it is, whether it is a standby, which cluster its
-- files are of, how often one of that cluster was promoted up to here (NULL on a standby), whether sessions begin read-only, how
-- far its log is written or replayed (bytes), whether commits wait for a standby, which process answers, and when the
-- server was started, by which two servers can be told apart.
SELECT clock_timestamp() AS moment, standby.it_is AS is_standby,
       (SELECT system_identifier FROM pg_control_system()) AS cluster,
       CASE WHEN NOT standby.it_is THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END AS timeline,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only,
       (CASE WHEN standby.it_is THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn)::bigint AS log_position,
       current_setting('synchronous_standby_names') <> '' AS is_replicated,
       pg_backend_pid() AS pid,
       pg_postmaster_start_time() AS started
FROM (SELECT pg_is_in_recovery() AS it_is OFFSET 0) AS standby;

-- name: lineage
-- Where the primary is of which a standby has the past.
SELECT place FROM generation;

-- name: settled
-- Writes to the log and nowhere else: its commit waits for a synchronous standby, and so for all that was committed before.
SELECT pg_logical_emit_message(true, 'realtime', '');
