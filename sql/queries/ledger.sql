-- name: record_batch
-- Records up to 1,000 submissions in one statement: transactions, totals, weeks, and one outbox row.
--   $1 bigint[] user ids, $2 text[] submission ids (no pair twice), $3 int[] scores, $4 text[] reasons,
--   $5 timestamptz[] moments (NULL: now), $6 bigint[] outbox rows that the store has by now, $7 text kind of outbox row,
--   $8 text epoch of the content that has those rows (NULL: that which is current), $9 bigint the catalogue's revision by which
--   they count on the published boards alone (NULL: any).
-- No row where the catalogue has another revision: nothing was recorded. Else one; what lists hold of one thing stands at the same place in each, NULL for empty lists:
--   week                                               Monday of the week it is now
--   outbox_id                                          NULL where nothing was recorded
--   ords, verdicts, verdict_weeks, seen_totals, seen_weeks  the submissions that are not recorded, by their place in the
--            batch, from 1: duplicate, conflict, unknown, hidden, range, future; for a duplicate the user's total and week
--            as this statement saw them
-- An empty reason is none, and comes as NULL; rows of before may have it. A moment that went through a clock of milliseconds,
-- as JavaScript's, is the same.
--   users, totals, versions, hidden                    each user with a fresh one: total, version, whether banned
--   new_users, usernames, user_versions                those whose total row is new
--   week_users, weeks, week_scores, week_versions      each user and week with a fresh one
--   closed_weeks                                       those of the weeks that are over: their views lack this now
--   fresh_users, fresh_ids                             what was recorded; NULL where nobody met a concurrent twin, that is
--            where it is all that has no verdict
-- Locks: transactions in order, then totals in order of user, then weeks of users whose total is already ours, then closed
-- weeks in order. Every step reads the one before it, which fixes that sequence. There is no join between the steps: planned for arrays of unknown
-- length such a join becomes a nested loop over the whole batch.
-- Who has a total that is not hidden exists and was not deleted: only others are looked up among the users, which spares
-- most submissions two pages that nothing else needs.
WITH moment AS MATERIALIZED (
    SELECT now, now + interval '5 seconds' AS latest  -- submissions.CLOCK_GRACE
    FROM clock_timestamp() AS now WHERE $9::bigint IS NULL OR EXISTS (SELECT FROM catalogue WHERE revision = $9)
), judged AS MATERIALIZED (
    SELECT i.ord, i.user_id, i.submission_id, i.score_added, i.reason,
           coalesce(i.created_at, moment.now) AS created_at,
           date_trunc('week', coalesce(old.created_at, i.created_at, moment.now) AT TIME ZONE 'UTC')::date AS week,
           t.total_score AS seen_total,
           CASE
               -- First: what was recorded has the same outcome for ever, also once the player is banned or deleted.
               WHEN old.id IS NOT NULL THEN
                   CASE WHEN old.score_added = i.score_added AND nullif(old.reason, '') IS NOT DISTINCT FROM i.reason
                             AND (i.created_at IS NULL OR i.created_at IN (old.created_at, date_trunc('milliseconds', old.created_at)))
                        THEN 'duplicate' ELSE 'conflict' END
               WHEN t.hidden IS NOT FALSE AND (u.id IS NULL OR u.deleted_at IS NOT NULL) THEN 'unknown'
               WHEN t.hidden THEN 'hidden'
               WHEN i.created_at > moment.latest THEN 'future'
               WHEN abs(coalesce(t.total_score, 0) + i.score_added) > 9007199254740992 THEN 'range'
           END AS verdict
    FROM unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::timestamptz[])
         WITH ORDINALITY AS i (user_id, submission_id, score_added, reason, created_at, ord)
    CROSS JOIN moment
    LEFT JOIN user_score_transactions old ON old.user_id = i.user_id AND old.submission_id = i.submission_id
    LEFT JOIN user_total_scores t ON t.user_id = i.user_id
    LEFT JOIN users u ON u.id = CASE WHEN t.hidden IS NOT FALSE THEN i.user_id END
), fresh AS (
    INSERT INTO user_score_transactions (user_id, submission_id, score_added, reason, created_at)
    SELECT user_id, submission_id, score_added, reason, created_at
    FROM judged WHERE verdict IS NULL
    ORDER BY user_id, submission_id COLLATE "C"
    ON CONFLICT (user_id, submission_id) DO NOTHING
    RETURNING user_id, submission_id, score_added, date_trunc('week', created_at AT TIME ZONE 'UTC')::date AS week
), totals AS (
    INSERT INTO user_total_scores AS t (user_id, total_score, updated_at)
    SELECT user_id, sum(score_added)::bigint, (SELECT now FROM moment) FROM fresh GROUP BY user_id ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE
        SET total_score = coalesce(t.total_score, 0) + excluded.total_score,
            version = t.version + 1,
            updated_at = excluded.updated_at
    RETURNING user_id, total_score, version, hidden, (xmax = 0) AS is_new
), weeks AS (
    INSERT INTO user_weekly_scores AS w (week, user_id, score)
    SELECT week, user_id, sum(score_added)::bigint
    FROM fresh WHERE (SELECT count(*) FROM totals) > 0 GROUP BY week, user_id ORDER BY user_id, week
    ON CONFLICT (week, user_id) DO UPDATE SET score = w.score + excluded.score, version = w.version + 1
    RETURNING week, user_id, score, version
), closed AS (
    -- A week that is live has no such row, or one that counts nothing: batches of the same week do not meet here.
    UPDATE closed_weeks c SET changes = c.changes + 1,
           quiet_until = CASE $7 WHEN 'import' THEN (SELECT now FROM moment) + interval '2 minutes' END
    FROM (SELECT week FROM closed_weeks WHERE week = ANY (ARRAY(SELECT DISTINCT week FROM weeks))
          AND changes IS NOT NULL ORDER BY week FOR UPDATE) AS locked
    WHERE c.week = locked.week
    RETURNING c.week
), pending AS (
    INSERT INTO outbox (kind, user_ids)
    SELECT $7, array_agg(DISTINCT user_id) FROM fresh HAVING count(*) > 0
    RETURNING id
), done AS (
    DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE id = ANY ($6::bigint[]) FOR UPDATE SKIP LOCKED)
           AND NOT EXISTS (SELECT FROM generation WHERE epoch <> $8)
)
SELECT date_trunc('week', moment.now AT TIME ZONE 'UTC')::date AS week, (SELECT id FROM pending) AS outbox_id,
       (SELECT array_agg(week) FROM closed) AS closed_weeks,
       refused.*, of_users.*, of_new.*, of_weeks.*, of_twins.*
FROM moment, (
    SELECT array_agg(j.ord) AS ords, array_agg(j.verdict) AS verdicts, array_agg(j.week) AS verdict_weeks,
           array_agg(j.seen_total) AS seen_totals,
           array_agg(CASE WHEN j.verdict = 'duplicate' THEN
               (SELECT w.score FROM user_weekly_scores w WHERE w.user_id = j.user_id AND w.week = j.week)
           END) AS seen_weeks
    FROM judged j WHERE j.verdict IS NOT NULL
) AS refused, (
    SELECT array_agg(user_id) AS users, array_agg(total_score) AS totals, array_agg(version) AS versions,
           array_agg(hidden) AS hidden
    FROM totals
) AS of_users, (
    SELECT array_agg(u.id) AS new_users, array_agg(u.username) AS usernames, array_agg(u.version) AS user_versions
    FROM totals t JOIN users u ON u.id = t.user_id WHERE t.is_new
) AS of_new, (
    SELECT array_agg(user_id) AS week_users, array_agg(week) AS weeks, array_agg(score) AS week_scores,
           array_agg(version) AS week_versions
    FROM weeks
) AS of_weeks, (
    SELECT array_agg(user_id) AS fresh_users, array_agg(submission_id) AS fresh_ids FROM fresh
    WHERE (SELECT count(*) FROM fresh) < (SELECT count(*) FROM judged WHERE verdict IS NULL)
) AS of_twins;

-- name: locked_players
-- Those players of $1 int[] sources, $2 bigint[] users at the same place, whose head (of default: total) somebody else has
-- locked, as a batch with a score of theirs would find it.
SELECT p.source, p.user_id FROM unnest($1::int[], $2::bigint[]) AS p (source, user_id)
LEFT JOIN LATERAL (
    SELECT true AS is_free FROM user_total_scores WHERE user_id = CASE WHEN p.source = 1 THEN p.user_id END FOR NO KEY UPDATE SKIP LOCKED
) AS t ON true
LEFT JOIN LATERAL (
    SELECT true AS is_free FROM heads WHERE source = CASE WHEN p.source <> 1 THEN p.source END AND user_id = p.user_id
    FOR NO KEY UPDATE SKIP LOCKED
) AS h ON true
WHERE t.is_free IS NULL AND h.is_free IS NULL
      AND CASE WHEN p.source = 1 THEN EXISTS (SELECT FROM user_total_scores WHERE user_id = p.user_id)
               ELSE EXISTS (SELECT FROM heads WHERE source = p.source AND user_id = p.user_id) END;

-- name: standings_of
-- The current absolute rows of $1 bigint[] users for all time and for $2 date[] weeks: what a resync tells the store.
-- week is NULL for the total. score is NULL where the user has no place on that board.
SELECT t.user_id, NULL::date AS week, t.version, CASE WHEN t.hidden THEN NULL ELSE t.total_score END AS score
FROM user_total_scores t WHERE t.user_id = ANY ($1::bigint[])
UNION ALL
SELECT w.user_id, w.week, w.version, CASE WHEN t.hidden THEN NULL ELSE w.score END
FROM user_weekly_scores w JOIN user_total_scores t USING (user_id)
WHERE w.user_id = ANY ($1::bigint[]) AND w.week = ANY ($2::date[]);

-- name: profiles_of
-- What boards show of $1 bigint[] users.
SELECT id AS user_id, username, version FROM users WHERE id = ANY ($1::bigint[]);

-- name: all_totals
-- Rows of the all-time board with what it shows of the user, hidden ones too (their versions guard): those after user $1,
-- up to $2. What is looked up beside the page is looked up row by row: joined, all of it might be read for every page.
SELECT t.user_id, t.version, CASE WHEN t.hidden THEN NULL ELSE t.total_score END AS score,
       u.username, u.version AS user_version
FROM (SELECT * FROM user_total_scores WHERE user_id > $1 ORDER BY user_id LIMIT $2) AS t
CROSS JOIN LATERAL (SELECT username, version FROM users WHERE id = t.user_id OFFSET 0) AS u
ORDER BY t.user_id;

-- name: all_of_week
-- Rows of week $1's board: those after user $2, up to $3.
SELECT w.user_id, w.version, CASE WHEN t.hidden THEN NULL ELSE w.score END AS score
FROM (SELECT * FROM user_weekly_scores WHERE week = $1 AND user_id > $2 ORDER BY user_id LIMIT $3) AS w
CROSS JOIN LATERAL (SELECT hidden FROM user_total_scores WHERE user_id = w.user_id OFFSET 0) AS t
ORDER BY w.user_id;

-- name: next_epoch
-- A number never before given out for the run $1, and beyond $2. No row in a copy of the ledger that is not known as such.
INSERT INTO store_epochs AS e (run, n)
SELECT $1, greatest($2, coalesce((SELECT first_epoch FROM generation), 0)) + 1 WHERE ledger_is_in_place()
ON CONFLICT (run) DO UPDATE SET n = greatest(e.n + 1, excluded.n) RETURNING n;

-- name: outbox_clear
-- Removes rows whose content the store has, but for those that somebody else is just removing: nobody waits for another.
-- $2 the epoch of the content that has them, NULL for whichever is current: where another is, they stay.
DELETE FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM outbox WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED))
       AND NOT EXISTS (SELECT FROM generation WHERE epoch <> $2);

-- name: outbox_waiting
-- Up to $2 rows older than $1 seconds, oldest first. A row of the future was written while the clock was wrong, so that nobody
-- knows how old it is.
SELECT id, kind, user_ids, source FROM outbox
WHERE created_at < clock_timestamp() - make_interval(secs => $1) OR created_at > clock_timestamp()
ORDER BY id LIMIT $2;

-- name: outbox_state
-- How many rows wait, and the age of the oldest in seconds; what is of the future counts as new.
SELECT count(*) AS waiting, greatest(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age FROM outbox;

-- name: durability
-- Settings that make a commit less than durable.
SELECT name FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes') AND setting = 'off';
