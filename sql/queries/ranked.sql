-- name: ranked_page
-- Rows of the board of rule $2 and window $3 of source $1, on leaderboard $4, with what it shows of the user, hidden ones too
-- (their versions guard): those after user $5, up to $6. What is looked up beside the page is looked up row by row.
WITH page AS MATERIALIZED (
    SELECT s.user_id, s.version, CASE WHEN h.hidden OR $4::int = ANY (h.hidden_on) THEN NULL ELSE s.score END AS score,
           s.at, s.at_id, s.metadata
    FROM (SELECT * FROM scores WHERE source = $1 AND rule = $2 AND "window" = $3 AND user_id > $5 ORDER BY user_id LIMIT $6) AS s
    CROSS JOIN LATERAL (
        SELECT hidden, hidden_on FROM heads WHERE source = $1 AND user_id = s.user_id
        UNION ALL SELECT hidden, hidden_on FROM user_total_scores WHERE $1 = 1 AND user_id = s.user_id -- default
        OFFSET 0
    ) AS h
)
SELECT p.*, u.username, u.version AS user_version
FROM page p CROSS JOIN LATERAL (SELECT username, version FROM users WHERE id = p.user_id OFFSET 0) AS u
ORDER BY p.user_id

-- name: ranked_of
-- The current absolute rows of $1 bigint[] users of $2 int[] sources under $3 int[] rules in $4 bigint[] windows, and the
-- leaderboards `of` the source that the user is not shown on. score is NULL for whoever is hidden on all of them.
SELECT s.rule, s."window", s.user_id, s.version, CASE WHEN h.hidden THEN NULL ELSE s.score END AS score,
       s.at, s.at_id, s.metadata, h.hidden_on
FROM unnest($2::int[]) AS of (source) CROSS JOIN unnest($1::bigint[]) AS u (id)
CROSS JOIN LATERAL (SELECT * FROM scores WHERE source = of.source AND user_id = u.id OFFSET 0) AS s
CROSS JOIN LATERAL (
    SELECT hidden, hidden_on FROM heads WHERE source = s.source AND user_id = s.user_id
    UNION ALL SELECT hidden, hidden_on FROM user_total_scores WHERE s.source = 1 AND user_id = s.user_id OFFSET 0
) AS h
WHERE s.rule = ANY ($3::int[]) AND s."window" = ANY ($4::bigint[])

-- name: ranked_users
-- Users with a row under rule $2 in window $3 of source $1, hidden ones too: those after id $4, up to $5.
SELECT user_id FROM scores WHERE source = $1 AND rule = $2 AND "window" = $3 AND user_id > $4 ORDER BY user_id LIMIT $5

-- name: ranked_count
-- How many have a place on the board of rule $2 and window $3 of source $1, on leaderboard $4.
SELECT count(*) - count(*) FILTER (WHERE EXISTS (
    SELECT FROM heads h WHERE h.source = $1 AND h.user_id = s.user_id AND (h.hidden OR $4::int = ANY (h.hidden_on))
    UNION ALL -- default
    SELECT FROM user_total_scores h WHERE $1 = 1 AND h.user_id = s.user_id AND (h.hidden OR $4::int = ANY (h.hidden_on)) -- default
))
FROM scores s WHERE source = $1 AND rule = $2 AND "window" = $3

-- name: ranked_compared
-- How many rows of rule $2 of source $1 are not what its log gives, in windows $3 to $5 (starts, ends, ids, in order), by
-- operator $6, smaller scores being better where $7.
WITH log AS (
    SELECT user_id, id, score_added::bigint AS score, created_at, metadata FROM user_score_transactions WHERE $1::int = 1 -- default
    UNION ALL -- default
    SELECT user_id, id, score, created_at, metadata FROM score_transactions WHERE source = $1
), entries AS (
    SELECT user_id, id, score, created_at, metadata,
           CASE WHEN created_at < ($4::timestamptz[])[width_bucket(created_at, $3::timestamptz[])]
                THEN ($5::bigint[])[width_bucket(created_at, $3::timestamptz[])] END AS "window"
    FROM log WHERE score IS NOT NULL OR $6::text = 'count'
), counted AS (
    SELECT DISTINCT ON (user_id, "window") "window", user_id, micros(created_at) AS at, id AS at_id, metadata,
           CASE $6 WHEN 'sum' THEN sum(score) OVER of_row WHEN 'count' THEN count(*) OVER of_row ELSE score END::bigint AS score
    FROM entries WHERE "window" IS NOT NULL
    WINDOW of_row AS (PARTITION BY user_id, "window")
    ORDER BY user_id, "window", CASE WHEN $6 = 'best' THEN CASE WHEN $7::boolean THEN score ELSE -score END END,
             CASE WHEN $6 = 'best' THEN created_at END, CASE WHEN $6 = 'best' THEN id END, created_at DESC, id DESC
), kept AS (
    SELECT "window", user_id, score, at, at_id, metadata FROM scores
    WHERE source = $1 AND rule = $2 AND "window" = ANY ($5::bigint[])
)
SELECT count(*) FROM counted c FULL JOIN kept k USING ("window", user_id)
WHERE (c.score, c.at, c.at_id, c.metadata) IS DISTINCT FROM (k.score, k.at, k.at_id, k.metadata)
