-- name: drift_page
-- Users of the board of week $1 (NULL: all time), hidden ones too: those after id $2, up to $3.
SELECT user_id FROM user_total_scores WHERE $1::date IS NULL AND user_id > $2
UNION ALL
SELECT user_id FROM user_weekly_scores WHERE week = $1 AND user_id > $2
ORDER BY 1 LIMIT $3

-- name: drift_waiting
-- Which of $1 bigint[] users have a change whose way to the store is not known to have ended.
SELECT DISTINCT u.id FROM outbox o CROSS JOIN unnest(o.user_ids) AS u (id) WHERE u.id = ANY ($1::bigint[])

-- name: drift_count
-- How many have a place on the board of week $1 (NULL: all time).
SELECT CASE WHEN $1::date IS NULL
    THEN (SELECT count(*) FROM user_total_scores WHERE NOT hidden AND total_score IS NOT NULL)
    ELSE (SELECT count(*) FROM user_weekly_scores w JOIN user_total_scores t USING (user_id)
          WHERE w.week = $1 AND NOT t.hidden)
END

-- name: drift_shown
-- Whether leaderboard $1 shows standings $2; NULL: those of the published tables.
SELECT EXISTS (
    SELECT FROM leaderboards l LEFT JOIN rules r ON r.id = l.rule
    WHERE l.id = $1 AND CASE WHEN $2::int IS NULL THEN NOT coalesce(r.kinds @> '{all_time}', false) ELSE l.rule = $2 END
)
