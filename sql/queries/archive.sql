-- Queries on closed weeks. {view} is put in by the caller: a name made of a checked date, never of input.

-- name: week_view
-- The week's standings, frozen: $ {starts} and {ends} are literals (DDL takes no parameters), the week is half-open.
CREATE MATERIALIZED VIEW {view} AS
SELECT row_number() OVER (ORDER BY score DESC, user_id::text COLLATE "C" DESC) AS place,
       rank() OVER (ORDER BY score DESC) AS rank,
       user_id, score
FROM (
    SELECT user_id, sum(score_added)::bigint AS score FROM user_score_transactions
    WHERE created_at >= '{starts}'::timestamptz AND created_at < '{ends}'::timestamptz
    GROUP BY user_id
) AS of_week
ORDER BY place

-- name: week_state
-- What there is of week $1, whose view is called $2: whether it is over for $3 interval, whether anything was ever recorded
-- in it, whether it lies before all that was, and whether its view answers for it. The view not by to_regclass(): a session
-- remembers that there was none, and where it has waited for a lock in between, does not hear of the one made meanwhile.
SELECT clock_timestamp() >= (($1::date + 7)::timestamp AT TIME ZONE 'UTC') + $3::interval AS is_over,
       EXISTS (SELECT FROM user_weekly_scores WHERE week = $1) AS has_scores,
       coalesce($1 < (SELECT min(week) FROM user_weekly_scores), true) AS is_too_old,
       EXISTS (SELECT FROM closed_weeks WHERE week = $1 AND holds IS NOT NULL)
           AND EXISTS (SELECT FROM pg_matviews WHERE schemaname = current_schema() AND matviewname = $2) AS answers

-- name: week_ends
-- From the commit of this on, statements that change scores of week $1 count that, if it is over for $2 interval now.
INSERT INTO closed_weeks AS c (week, version, changes)
SELECT $1::date, 0, 0 WHERE clock_timestamp() >= (($1::date + 7)::timestamp AT TIME ZONE 'UTC') + $2::interval
ON CONFLICT (week) DO UPDATE SET changes = 0 WHERE c.changes IS NULL

-- name: week_writers
-- Transactions that may have begun to change scores, names or bans before they could see a week's end; those among $1
-- text[] where that is not NULL. Whoever takes this lock does so before looking at any row.
SELECT array_agg(DISTINCT virtualtransaction) AS writers FROM pg_locks
WHERE relation = 'closed_weeks'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND ($1::text[] IS NULL OR virtualtransaction = ANY ($1))

-- name: week_counted
-- The changes of week $1 and how many of them its view holds; whether that, called $2, has content and a unique index; and
-- whether it can be brought up to date beside its readers, for which PostgreSQL makes a temporary table.
SELECT c.changes, c.holds, EXISTS (
    SELECT FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_index i ON i.indrelid = r.oid
    WHERE n.nspname = current_schema() AND r.relname = $2 AND r.relkind = 'm' AND r.relispopulated
          AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
) AS is_whole, has_database_privilege(current_database(), 'TEMP') AS beside_readers
FROM closed_weeks c WHERE c.week = $1

-- name: week_filled
-- The view of week $1 holds $2 of its changes, and maybe more. The store hears of it, but for the first time: before it was
-- told nothing.
UPDATE closed_weeks SET version = version + 1, holds = $2, told = CASE WHEN holds IS NULL THEN $2 ELSE told END,
       players = (SELECT count(*) FROM {view}), updated_at = clock_timestamp()
WHERE week = $1

-- name: week_told
-- The store was told what the view of week $1 holds, $2 changes: its content of epoch $3, NULL for whichever is current. Where
-- another is, that one may keep what was read before, and is told once more.
UPDATE closed_weeks SET told = $2
WHERE week = $1 AND holds = $2 AND NOT EXISTS (SELECT FROM generation WHERE epoch <> $3)

-- name: weeks_behind
-- Weeks whose view lacks changes, or of whose content the store has not heard: those of $1 date[], NULL for all, up to $2. With
-- $3 those left alone too, as long as an import goes on; a moment too far ahead was set by a clock that was wrong.
SELECT week FROM closed_weeks
WHERE (holds <> changes OR holds IS DISTINCT FROM told) AND holds IS NOT NULL
      AND ($1::date[] IS NULL OR week = ANY ($1))
      AND ($3 OR quiet_until IS NULL
           OR quiet_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '2 minutes')
ORDER BY week LIMIT $2

-- name: weeks_early
-- Weeks that count as over and are not, or not for $1 interval: a clock was wrong.
SELECT week, version FROM closed_weeks
WHERE changes IS NOT NULL AND clock_timestamp() < ((week + 7)::timestamp AT TIME ZONE 'UTC') + $1::interval

-- name: week_withdrawn
-- Week $1 is not over: its view answers no more, and nobody counts.
UPDATE closed_weeks SET changes = NULL, holds = NULL, told = NULL, version = version + 1 WHERE week = $1 AND version = $2

-- name: week_after
-- The next week after $1 whose view answers for it.
SELECT week FROM closed_weeks WHERE week > $1 AND holds IS NOT NULL ORDER BY week LIMIT 1

-- name: week_compared
-- How many users differ between the view of week $1 and what was recorded; NULL where changes are on their way.
SELECT CASE WHEN c.holds = c.changes THEN (
    SELECT count(*) FROM {view} v FULL JOIN (SELECT user_id, score FROM user_weekly_scores WHERE week = $1) AS w USING (user_id)
    WHERE v.score IS DISTINCT FROM w.score
) END AS differing
FROM closed_weeks c WHERE c.week = $1

-- name: week_players
-- Who has a score in week $1.
SELECT count(*) FROM user_weekly_scores WHERE week = $1

-- name: week_doubted
-- The view of week $1 is not what it should be: it is made anew.
UPDATE closed_weeks SET changes = changes + 1 WHERE week = $1

-- name: log_compared
-- How many users' weeks are not the sum of what the log has.
SELECT count(*) FROM (
    SELECT date_trunc('week', created_at AT TIME ZONE 'UTC')::date AS week, user_id, sum(score_added)::bigint AS score
    FROM user_score_transactions GROUP BY 1, 2
) AS l FULL JOIN user_weekly_scores w USING (week, user_id) WHERE l.score IS DISTINCT FROM w.score

-- name: weeks_versions
-- Versions of those of $1 date[] weeks whose view answers for them.
SELECT week, version FROM closed_weeks WHERE week = ANY ($1::date[]) AND holds IS NOT NULL

-- name: week_standings
-- $1 date, $2 bigint[] users, in that order: score, players above, the least score above; NULL where not shown. With each,
-- the week's version and players.
WITH hidden AS MATERIALIZED (
    SELECT v.score FROM user_total_scores t JOIN {view} v USING (user_id) WHERE t.hidden
)
SELECT c.version, c.players - (SELECT count(*) FROM hidden) AS players, own.score,
       own.rank - 1 - (SELECT count(*) FROM hidden h WHERE h.score > own.score) AS above,
       (SELECT v.score FROM {view} v JOIN user_total_scores t USING (user_id)
        WHERE v.score > own.score AND NOT t.hidden ORDER BY v.score LIMIT 1) AS next_score
FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (user_id, ord)
JOIN closed_weeks c ON c.week = $1 AND c.holds IS NOT NULL
LEFT JOIN (SELECT v.* FROM {view} v JOIN user_total_scores t USING (user_id) WHERE NOT t.hidden) AS own
       ON own.user_id = wanted.user_id
ORDER BY wanted.ord

-- name: week_page
-- $1 date, $2 offset, $3 limit: rows of a closed week with ranks among those who are shown; first the week's version and
-- number of players. A week without (shown) rows gives one row with NULL user_id. A place is at least the number of rows shown
-- before it, so the first $2 places are stepped over by index, and then as many rows as hidden ones were among them.
WITH hidden AS MATERIALIZED (
    SELECT v.place, v.score FROM user_total_scores t JOIN {view} v USING (user_id) WHERE t.hidden
), shown AS (
    SELECT v.place, v.rank, v.user_id, v.score, u.username
    FROM {view} v JOIN users u ON u.id = v.user_id JOIN user_total_scores t ON t.user_id = v.user_id
    WHERE NOT t.hidden AND v.place > $2
    ORDER BY v.place OFFSET (SELECT count(*) FROM hidden WHERE place <= $2) LIMIT $3
)
SELECT c.version, c.players - (SELECT count(*) FROM hidden) AS players,
       s.rank - (SELECT count(*) FROM hidden h WHERE h.score > s.score) AS rank, s.user_id, s.username, s.score
FROM closed_weeks c LEFT JOIN shown s ON true
WHERE c.week = $1 AND c.holds IS NOT NULL
ORDER BY s.place

-- name: week_user
-- $1 date, $2 user id: the user's row of a closed week and $3 neighbours on each side, in board order.
WITH shown AS NOT MATERIALIZED (
    SELECT v.place, v.rank, v.user_id, v.score, u.username
    FROM {view} v JOIN users u ON u.id = v.user_id JOIN user_total_scores t ON t.user_id = v.user_id
    WHERE NOT t.hidden
), me AS MATERIALIZED (
    SELECT * FROM shown WHERE user_id = $2
), hidden AS MATERIALIZED (
    SELECT v.score FROM user_total_scores t JOIN {view} v USING (user_id) WHERE t.hidden
), around AS (
    (SELECT s.* FROM shown s WHERE s.place < (SELECT place FROM me) ORDER BY s.place DESC LIMIT $3)
    UNION ALL SELECT * FROM me UNION ALL
    (SELECT s.* FROM shown s WHERE s.place > (SELECT place FROM me) ORDER BY s.place LIMIT $3)
)
SELECT c.version, c.players - (SELECT count(*) FROM hidden) AS players,
       a.rank - (SELECT count(*) FROM hidden h WHERE h.score > a.score) AS rank, a.user_id, a.username, a.score,
       (SELECT s.score FROM shown s WHERE s.score > (SELECT score FROM me) ORDER BY s.score LIMIT 1) AS next_score
FROM closed_weeks c LEFT JOIN around a ON true
WHERE c.week = $1 AND c.holds IS NOT NULL
ORDER BY a.place

-- name: weeks_listed
-- Closed weeks with scores, newest first, and how many there are: $1 the first week that is not closed, $2 offset, $3 limit.
-- Weeks are stepped through by index, from one to the next; only those without a view have their players counted.
WITH RECURSIVE weeks AS (
    SELECT max(week) AS week FROM user_weekly_scores WHERE week < $1
    UNION ALL
    SELECT (SELECT max(w.week) FROM user_weekly_scores w WHERE w.week < weeks.week) FROM weeks WHERE week IS NOT NULL
), listed AS (
    SELECT week, count(*) OVER () AS total FROM weeks WHERE week IS NOT NULL ORDER BY week DESC OFFSET $2 LIMIT $3
), hidden AS (
    SELECT w.week, count(*) AS players FROM user_total_scores t JOIN user_weekly_scores w USING (user_id)
    WHERE t.hidden GROUP BY w.week
)
SELECT l.week, l.total,
       coalesce(c.players, (SELECT count(*) FROM user_weekly_scores w WHERE w.week = l.week))
           - coalesce(h.players, 0) AS players
FROM listed l LEFT JOIN closed_weeks c ON c.week = l.week AND c.holds IS NOT NULL LEFT JOIN hidden h ON h.week = l.week
ORDER BY l.week DESC

-- name: weeks_unopened
-- Up to $2 weeks with scores that are over for $1 interval and whose view does not answer, oldest first.
WITH RECURSIVE weeks AS (
    SELECT min(week) AS week FROM user_weekly_scores
    UNION ALL
    SELECT (SELECT min(w.week) FROM user_weekly_scores w WHERE w.week > weeks.week) FROM weeks WHERE week IS NOT NULL
)
SELECT week FROM weeks
WHERE week + 7 <= (clock_timestamp() - $1::interval) AT TIME ZONE 'UTC'
      AND NOT EXISTS (SELECT FROM closed_weeks c WHERE c.week = weeks.week AND c.holds IS NOT NULL)
ORDER BY week LIMIT $2
