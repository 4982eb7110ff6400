-- Queries on the catalogue: which revision there is, and the windows around now.

-- name: catalogue_revision
-- Moves with every change of a definition, a rule, or a window that is not over.
SELECT revision FROM catalogue

-- name: windows_near
-- Of all standings that are shown or being made, and of every kind of their windows: the last three that have begun, and the
-- next two. NULL for what has no start, or no end. The moment must be one that PostgreSQL takes for the same throughout: else it
-- reads every window there is.
SELECT r.id AS rule, w.kind, w.name, nullif(w.starts, '-infinity') AS starts, nullif(w.ends, 'infinity') AS ends, w.id
FROM leaderboards l JOIN rules r ON r.leaderboard = l.id AND r.id IN (l.rule, l.next_rule) CROSS JOIN unnest(r.kinds) AS k (kind)
CROSS JOIN LATERAL (
    (SELECT * FROM windows b WHERE b.leaderboard = l.id AND b.kind = k.kind AND b.starts <= statement_timestamp()
     ORDER BY b.starts DESC LIMIT 3)
    UNION ALL
    (SELECT * FROM windows n WHERE n.leaderboard = l.id AND n.kind = k.kind AND n.starts > statement_timestamp()
     ORDER BY n.starts LIMIT 2)
) AS w
WHERE l.removed_at IS NULL
ORDER BY r.id, w.kind, w.starts

-- name: windows_kept
-- Makes sure that every leaderboard has the windows of now, and those after them. Whether a row was made.
SELECT ensure_next_windows()

-- name: window_named
-- The window of leaderboard $1 that is called $2.
SELECT kind, name, nullif(starts, '-infinity') AS starts, nullif(ends, 'infinity') AS ends, id
FROM windows WHERE leaderboard = $1 AND name = $2

-- name: window_on
-- The window of leaderboard $1, of kind $2, by zone $3 and first day of the week $4, in which day $5 begins, as it is where
-- nobody was in it; whether it has begun, and whether it lies before the first that anybody was in. No row where there is none.
SELECT c.day, c.starts, c.ends, c.starts <= clock_timestamp() AS has_begun,
       c.ends <= coalesce((SELECT min(w.starts) FROM windows w WHERE w.leaderboard = $1 AND w.kind = $2), c.ends) AS is_too_old
FROM (SELECT first_instant($5::date, $3) AS begins) AS f
CROSS JOIN LATERAL (SELECT * FROM calendar_window($2, $3, $4, f.begins) WHERE f.begins IS NOT NULL) AS c
