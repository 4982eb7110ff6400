-- name: ranked_page
-- Rows of the board of rule $2 and window $3 of source $1, on leaderboard $4, with what it shows of the user, hidden ones too
-- (their versions guard): those after user $5, up to $6. What is looked up beside the page is looked up row by row.
SELECT s.user_id, s.version, CASE WHEN h.hidden OR $4::int = ANY (h.hidden_on) THEN NULL ELSE s.score END AS score,
       s.at, s.at_id, s.metadata, u.username, u.version AS user_version
FROM (SELECT * FROM scores WHERE source = $1 AND rule = $2 AND "window" = $3 AND user_id > $5 ORDER BY user_id LIMIT $6) AS s
CROSS JOIN LATERAL (
    SELECT hidden, hidden_on FROM heads WHERE source = s.source AND user_id = s.user_id
    UNION ALL SELECT hidden, hidden_on FROM user_total_scores WHERE s.source = 1 AND user_id = s.user_id OFFSET 0
) AS h
CROSS JOIN LATERAL (SELECT username, version FROM users WHERE id = s.user_id OFFSET 0) AS u
ORDER BY s.user_id

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
    SELECT FROM heads h WHERE h.source = s.source AND h.user_id = s.user_id AND (h.hidden OR $4::int = ANY (h.hidden_on))
    UNION ALL
    SELECT FROM user_total_scores h
    WHERE s.source = 1 AND h.user_id = s.user_id AND (h.hidden OR $4::int = ANY (h.hidden_on))
))
FROM scores s WHERE source = $1 AND rule = $2 AND "window" = $3
