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

-- name: week_digest
-- How many players a view has, and a number that stands for all its scores.
SELECT count(*) AS players, coalesce(bit_xor(hashint8extended(score, user_id)), 0) AS digest FROM {view}

-- name: week_opened
-- What there is of week $1: its version, and its view, which is called $2. Not by to_regclass(): a session remembers that
-- there was none, and where it has waited for a lock in between, does not hear of the one made meanwhile.
SELECT (SELECT version FROM closed_weeks WHERE week = $1::date) AS version,
       EXISTS (SELECT FROM pg_matviews WHERE schemaname = current_schema() AND matviewname = $2::text) AS has_view

-- name: weeks_locked
-- First of two statements: waits until every view in the making of $1 date[] weeks is there, and keeps others from beginning.
-- $2 the number of the locks' family.
SELECT pg_advisory_xact_lock_shared($2::bigint + lock.day)
FROM (SELECT week - DATE '0001-01-01' + 1 AS day FROM unnest($1::date[]) AS w (week) ORDER BY week) AS lock

-- name: weeks_opened
-- Which of $1 date[] weeks have their view.
SELECT week FROM closed_weeks WHERE week = ANY ($1::date[]) ORDER BY week

-- name: week_filled
-- The view of week $1 was filled just now; its version is one further.
INSERT INTO closed_weeks AS c (week, players) VALUES ($1, $2)
ON CONFLICT (week) DO UPDATE SET version = c.version + 1, players = excluded.players, updated_at = clock_timestamp()

-- name: first_week
-- The week of the oldest score, NULL where there is none.
SELECT min(week) FROM user_weekly_scores

-- name: weeks_versions
-- Versions of those of $1 date[] weeks that have their view.
SELECT week, version FROM closed_weeks WHERE week = ANY ($1::date[])

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
JOIN closed_weeks c ON c.week = $1
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
WHERE c.week = $1
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
WHERE c.week = $1
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
FROM listed l LEFT JOIN closed_weeks c USING (week) LEFT JOIN hidden h USING (week)
ORDER BY l.week DESC

-- name: weeks_unopened
-- Closed weeks with scores that have no view yet, oldest first; $1 the first week that is not closed.
WITH RECURSIVE weeks AS (
    SELECT min(week) AS week FROM user_weekly_scores WHERE week < $1
    UNION ALL
    SELECT (SELECT min(w.week) FROM user_weekly_scores w WHERE w.week > weeks.week AND w.week < $1)
    FROM weeks WHERE week IS NOT NULL
)
SELECT week FROM weeks
WHERE week IS NOT NULL AND NOT EXISTS (SELECT FROM closed_weeks c WHERE c.week = weeks.week) ORDER BY week LIMIT $2
