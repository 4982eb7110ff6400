-- Queries on builds: standings that are made from the log beside those that are shown. {log}, {heads} and what else stands in
-- braces is put in by `ledger.builds`, never from input. A source's heads are locked in one statement, and its log is read in
-- the next: what that sees of a player whose head is locked is all there is.

-- name: builds
-- Sources with standings to be made, and what round of marks that is.
SELECT l.id AS source, l.slug, l.round, array_agg(r.id ORDER BY r.id) AS rules
FROM rules r JOIN leaderboards l ON l.id = r.source WHERE r.state = 'building'
GROUP BY l.id ORDER BY min(r.id)

-- name: build_rules
-- Standings of source $1 that are to be made in round $2 of its marks; none where that is over.
SELECT r.id, r.leaderboard, o.slug, r.operator, r.ascending, r.kinds
FROM rules r JOIN leaderboards o ON o.id = r.leaderboard JOIN leaderboards l ON l.id = r.source
WHERE r.source = $1 AND l.round = $2 AND r.state = 'building' ORDER BY r.id

-- name: build_writers
-- Transactions that may have begun to record scores before they could see a rule; those among $1 text[] where that is not NULL.
-- A statement takes its locks on tables before it looks at any row: whoever holds none yet will see the rule.
SELECT array_agg(DISTINCT virtualtransaction) AS writers FROM pg_locks
WHERE relation IN ('user_score_transactions'::regclass, 'score_transactions'::regclass, 'user_total_scores'::regclass, 'heads'::regclass,
                   to_regclass('spread.score_transactions'), to_regclass('spread.heads'))
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND ($1::text[] IS NULL OR virtualtransaction = ANY ($1))

-- name: build_counted
-- How many heads of source $1 are marked with round $2, and how many it has.
SELECT count(*) FILTER (WHERE built = $2) AS done, count(*) AS todo FROM {heads}

-- name: build_begun
-- $2 heads of source $1 are done, of $3: kept with the rules that are being made.
UPDATE rules SET done = $2, todo = $3, updated_at = clock_timestamp() WHERE source = $1 AND state = 'building' RETURNING done, todo

-- name: build_windows
-- The windows of leaderboard $1 and kind $2, in order: a moment's is the last that starts by then, if it ends later.
SELECT coalesce(array_agg(starts ORDER BY starts), '{}') AS starts, coalesce(array_agg(ends ORDER BY starts), '{}') AS ends,
       coalesce(array_agg(id ORDER BY starts), '{}') AS ids
FROM windows WHERE leaderboard = $1 AND kind = $2

-- name: build_locked
-- Locks up to $4 heads of source $1 behind user $3 that are not marked with round $2.
SELECT user_id FROM {heads} AND user_id > $3 AND built <> $2
      AND EXISTS (SELECT FROM leaderboards WHERE id = $1 AND round = $2)
ORDER BY user_id LIMIT $4 FOR NO KEY UPDATE

-- name: build_filled
-- Standings $2 of source $1 get the rows of $3 bigint[] users in windows $4 to $6 (starts, ends, ids); moments that no window
-- holds are returned, one a day, and users whose sums are far from zero. `counted` has the submission that counts of each row, and
-- what all of them come to: one sort serves both. Rows that are there already are an error: with ON CONFLICT each row is looked up
-- before it is written, a fifth of the time.
WITH entries AS MATERIALIZED (
    SELECT user_id, id, score, created_at, metadata,
           CASE WHEN created_at < ($5::timestamptz[])[width_bucket(created_at, $4::timestamptz[])]
                THEN ($6::bigint[])[width_bucket(created_at, $4::timestamptz[])] END AS "window"
    FROM {log} AND user_id = ANY ($3::bigint[]) AND {counts}
), counted AS (
    SELECT DISTINCT ON (user_id, "window") "window", user_id, {score} AS score, created_at, id, metadata
    FROM entries WHERE "window" IS NOT NULL
    WINDOW of_row AS (PARTITION BY user_id, "window" ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ORDER BY user_id, "window", {order}
), filled AS (
    INSERT INTO scores (source, rule, "window", user_id, score, version, at, at_id, metadata)
    SELECT $1::int, $2::int, "window", user_id, score, {version}, micros(created_at), id, metadata FROM counted ORDER BY user_id, "window"
)
SELECT array_agg(moment) AS lacking, {far} AS far FROM (
    SELECT min(created_at) AS moment FROM entries WHERE "window" IS NULL GROUP BY created_at::date
) AS lacking

-- name: build_emptied
-- Standings $2 of source $1 have no rows of $3 bigint[] users.
DELETE FROM scores WHERE source = $1 AND rule = $2 AND user_id = ANY ($3::bigint[])

-- name: build_marked
-- Heads of source $1 of $3 bigint[] users have their rows: round $2. Sums of $4 bigint[] among them are far from zero.
UPDATE {heads_table} SET built = $2{far} WHERE {heads_own} AND user_id = ANY ($3::bigint[])

-- name: build_moved
-- $2 more heads are done. Returns how many submissions were ever recorded: whoever paces a build compares that.
WITH moved AS (
    UPDATE rules SET done = least(done + $2, greatest(todo, done)), updated_at = clock_timestamp()
    WHERE source = $1 AND state = 'building'
)
SELECT (SELECT last_value FROM user_score_transactions_id_seq) + (SELECT last_value FROM score_transactions_id_seq)

-- name: build_overflow
-- One of $3 bigint[] users of source $1 whose sum for standings $2 leaves its range in one of windows $4 to $6.
SELECT user_id, (SELECT name FROM windows w WHERE w.id = f."window" AND w.leaderboard = (SELECT leaderboard FROM rules WHERE id = $2))
FROM (
    SELECT user_id, sum(score) AS score,
           CASE WHEN created_at < ($5::timestamptz[])[width_bucket(created_at, $4::timestamptz[])]
                THEN ($6::bigint[])[width_bucket(created_at, $4::timestamptz[])] END AS "window"
    FROM {log} AND user_id = ANY ($3::bigint[]) AND score IS NOT NULL AND $1::int > 0
    GROUP BY user_id, 3
) AS f WHERE f."window" IS NOT NULL AND abs(f.score) > 9007199254740991 ORDER BY user_id LIMIT 1

-- name: build_failed
-- Standings $1 cannot be made: $2 says why. Returns the leaderboard, where they were being made.
WITH failed AS (
    UPDATE rules SET state = 'retired', failure = $2, updated_at = clock_timestamp() WHERE id = $1 AND state = 'building' RETURNING leaderboard
), given_up AS (
    UPDATE leaderboards SET next_rule = NULL, updated_at = clock_timestamp() FROM failed WHERE id = failed.leaderboard AND next_rule = $1
)
SELECT leaderboard FROM failed

-- name: build_unmarked
-- Whether source $1 has a head that round $2 has not marked.
SELECT EXISTS (SELECT FROM {heads} AND built <> $2)

-- name: build_switched
-- Standings $1 are shown from now on, if they are still those that are wanted; the store is to be told. Closed boards are other
-- ones now: the number of their standings is a part of their versions.
WITH next AS (
    SELECT l.id, l.rule FROM leaderboards l JOIN rules r ON r.id = $1 WHERE l.next_rule = $1 AND r.state = 'building' FOR NO KEY UPDATE OF l, r
), retired AS (
    UPDATE rules SET state = 'retired', updated_at = clock_timestamp() WHERE id = (SELECT rule FROM next) AND id <> $1
), live AS (
    UPDATE rules SET state = 'live', done = todo, updated_at = clock_timestamp() WHERE id = $1 AND EXISTS (SELECT FROM next)
)
UPDATE leaderboards l SET rule = $1, updated_at = clock_timestamp() FROM next WHERE l.id = next.id RETURNING l.id

-- name: build_told
-- The store shows standings $1: nothing more is to be done.
UPDATE leaderboards SET next_rule = NULL WHERE next_rule = $1 AND rule = $1

-- name: build_untold
-- Leaderboards whose standings are made, and of which the store has not heard.
SELECT slug FROM leaderboards WHERE next_rule = rule ORDER BY id

-- name: retired_rules
-- Standings that are no more, for $1 interval: whoever knew no better and wrote rows of them has ended. One that could not be
-- made stays, without rows, to tell why.
SELECT r.id, r.source, r.leaderboard, l.slug, s.slug AS source_slug, r.failure, l.removed_at IS NOT NULL AS is_removed
FROM rules r JOIN leaderboards l ON l.id = r.leaderboard JOIN leaderboards s ON s.id = r.source
WHERE r.state = 'retired' AND r.updated_at < clock_timestamp() - $1::interval
      AND (r.failure IS NULL OR EXISTS (SELECT FROM scores c WHERE c.source = r.source AND c.rule = r.id))
ORDER BY r.id

-- name: recent_windows
-- The windows of leaderboard $1 whose boards the store may have.
SELECT id, kind, name, CASE WHEN isfinite(starts) THEN starts END AS starts, CASE WHEN isfinite(ends) THEN ends END AS ends
FROM windows WHERE leaderboard = $1 AND ends > clock_timestamp() - interval '10 days'

-- name: retired_rows
-- Removes up to $3 rows of standings $2 of source $1.
WITH doomed AS (
    SELECT "window", user_id FROM scores WHERE source = $1 AND rule = $2 LIMIT $3
)
DELETE FROM scores s USING doomed d
WHERE s.source = $1 AND s.rule = $2 AND s."window" = d."window" AND s.user_id = d.user_id RETURNING 1

-- name: retired_rule
-- Standings $1 have no rows any more.
DELETE FROM rules r WHERE r.id = $1 AND r.state = 'retired'
    AND NOT EXISTS (SELECT FROM leaderboards l WHERE l.id = r.leaderboard AND r.id IN (l.rule, l.next_rule))

-- name: dropped_windows
-- Windows of kinds that the standings which are shown have not had for $2 interval, and that have rows.
SELECT r.source, r.id AS rule, w.id AS "window" FROM rules r JOIN windows w ON w.leaderboard = r.leaderboard AND w.kind <> ALL (r.kinds)
WHERE r.state = 'live' AND r.updated_at < clock_timestamp() - $2::interval AND EXISTS (SELECT FROM scores s WHERE s.source = r.source AND s.rule = r.id AND s."window" = w.id) LIMIT $1

-- name: dropped_rows
-- Removes up to $4 rows of standings $2 of source $1 in window $3.
WITH doomed AS (
    SELECT user_id FROM scores WHERE source = $1 AND rule = $2 AND "window" = $3 LIMIT $4
)
DELETE FROM scores s USING doomed d WHERE s.source = $1 AND s.rule = $2 AND s."window" = $3 AND s.user_id = d.user_id RETURNING 1
