-- Queries on boards whose window is over, read from `scores` as it is: {order} puts the better row first, {better} compares a
-- better score with another, {best} sorts scores. All of it is put in by `ledger.closed_boards`, never from input.
-- $1 source, $2 rule, $3 window, $4 leaderboard, in all but the last two. Of a week of default the version of its view is a part
-- of the version: who followed it as a published week was told that one, and no board's version goes back.

-- name: closed_page
-- $5 offset, $6 limit: rows of a board, in its order; with each the board's version, its players, and how many of those are
-- better than the first row, and by how many scores. A page without rows gives one row with NULL user_id. The version is NULL,
-- here and below, where the leaderboard shows another rule by now: these are no rows of that version.
WITH hidden AS MATERIALIZED (
    SELECT user_id FROM heads WHERE source = $1 AND (hidden OR hidden_on <> '{{}}') AND (hidden OR $4::int = ANY (hidden_on))
    UNION ALL -- default
    SELECT user_id FROM user_total_scores WHERE $1 = 1 AND (hidden OR hidden_on <> '{{}}') AND (hidden OR $4::int = ANY (hidden_on)) -- default
), shown AS NOT MATERIALIZED (
    SELECT s.user_id, s.score, s.at, s.at_id, s.metadata FROM scores s
    WHERE s.source = $1 AND s.rule = $2 AND s."window" = $3 AND s.user_id NOT IN (SELECT user_id FROM hidden)
), page AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY {order}) AS place
    FROM (SELECT * FROM shown s ORDER BY {order} OFFSET $5 LIMIT $6) AS s
), first AS MATERIALIZED (
    SELECT score FROM page WHERE place = 1
)
SELECT CASE WHEN EXISTS (SELECT FROM leaderboards WHERE id = $4 AND rule = $2) THEN w.version + c.shown + $2
           + coalesce((SELECT v.version FROM closed_weeks v WHERE w.leaderboard = 1 AND w.kind = 'week' AND v.week = (w.starts AT TIME ZONE 'UTC')::date), 0) -- default
       END AS version,
       (SELECT count(*) FROM shown) AS players,
       (SELECT count(*) FROM shown WHERE score {better} (SELECT score FROM first)) AS above,
       (SELECT count(DISTINCT score) FROM shown WHERE $5 < 100 AND score {better} (SELECT score FROM first)) AS scores_above,
       p.user_id, u.username, p.score, p.at, p.at_id, p.metadata
FROM windows w CROSS JOIN catalogue c LEFT JOIN page p ON true LEFT JOIN users u ON u.id = p.user_id
WHERE w.leaderboard = $4 AND w.id = $3
ORDER BY p.place

-- name: closed_standings
-- $5 bigint[] users: where each stands on a board, in the order asked: score, place, competition rank, rank among scores, the next
-- better score; NULL where not shown. With each the board's version and players.
WITH hidden AS MATERIALIZED (
    SELECT user_id FROM heads WHERE source = $1 AND (hidden OR hidden_on <> '{{}}') AND (hidden OR $4::int = ANY (hidden_on))
    UNION ALL -- default
    SELECT user_id FROM user_total_scores WHERE $1 = 1 AND (hidden OR hidden_on <> '{{}}') AND (hidden OR $4::int = ANY (hidden_on)) -- default
), ranked AS MATERIALIZED (
    SELECT s.user_id, s.score, row_number() OVER (ORDER BY {order}) AS place, rank() OVER better AS rank,
           dense_rank() OVER better AS dense,
           max(s.score) OVER (ORDER BY s.score {best} GROUPS BETWEEN 1 PRECEDING AND 1 PRECEDING) AS next_score
    FROM scores s
    WHERE s.source = $1 AND s.rule = $2 AND s."window" = $3 AND s.user_id NOT IN (SELECT user_id FROM hidden)
    WINDOW better AS (ORDER BY s.score {best})
)
SELECT CASE WHEN EXISTS (SELECT FROM leaderboards WHERE id = $4 AND rule = $2) THEN w.version + c.shown + $2
           + coalesce((SELECT v.version FROM closed_weeks v WHERE w.leaderboard = 1 AND w.kind = 'week' AND v.week = (w.starts AT TIME ZONE 'UTC')::date), 0) -- default
       END AS version,
       (SELECT count(*) FROM ranked) AS players,
       r.score, r.place, r.rank, r.dense, r.next_score
FROM windows w CROSS JOIN catalogue c CROSS JOIN unnest($5::bigint[]) WITH ORDINALITY AS wanted (user_id, ord)
LEFT JOIN ranked r ON r.user_id = wanted.user_id
WHERE w.leaderboard = $4 AND w.id = $3
ORDER BY wanted.ord

-- name: closed_versions
-- Versions of boards: $1 int[] leaderboards, $2 text[] names of windows of theirs. A part of each is the number of the standings
-- that are shown: others have a greater one.
SELECT w.leaderboard, w.name, w.version + c.shown + coalesce(l.rule, 0)
           + coalesce((SELECT v.version FROM closed_weeks v WHERE w.leaderboard = 1 AND w.kind = 'week' AND v.week = (w.starts AT TIME ZONE 'UTC')::date), 0) AS version
FROM unnest($1::int[], $2::text[]) AS wanted (leaderboard, name)
JOIN windows w ON w.leaderboard = wanted.leaderboard AND w.name = wanted.name
JOIN leaderboards l ON l.id = w.leaderboard CROSS JOIN catalogue c

-- name: closed_listed
-- Windows of leaderboard $1 of kinds $2 text[] that are over for $3 interval, newest first: $4 offset, $5 limit. With each how many
-- players there are under rule $7 of source $6, and how many windows there are in all.
WITH hidden AS MATERIALIZED (
    SELECT user_id FROM heads WHERE source = $6 AND (hidden OR hidden_on <> '{}') AND (hidden OR $1::int = ANY (hidden_on))
    UNION ALL -- default
    SELECT user_id FROM user_total_scores WHERE $6 = 1 AND (hidden OR hidden_on <> '{}') AND (hidden OR $1::int = ANY (hidden_on)) -- default
)
SELECT w.kind, w.name, nullif(w.starts, '-infinity') AS starts, w.ends, w.id, w.total,
       (SELECT count(*) FROM scores s WHERE s.source = $6 AND s.rule = $7 AND s."window" = w.id)
       - (SELECT count(*) FROM hidden h JOIN scores s ON s.user_id = h.user_id
          WHERE s.source = $6 AND s.rule = $7 AND s."window" = w.id) AS players
FROM (
    SELECT *, count(*) OVER () AS total FROM windows
    WHERE leaderboard = $1 AND kind = ANY ($2::text[]) AND ends <= clock_timestamp() - $3::interval
    ORDER BY ends DESC, kind OFFSET $4 LIMIT $5
) AS w
ORDER BY w.ends DESC, w.kind
