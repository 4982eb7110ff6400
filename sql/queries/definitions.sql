-- Queries on definitions: which leaderboards there are, and what a change of one makes anew.
-- Whoever changes them calls while_nobody_is_hidden() first: it also lets one such transaction in at a time.

-- name: zones
-- What PostgreSQL calls time zones.
SELECT name FROM pg_timezone_names

-- name: stretched
-- The running windows of leaderboard $1, of kinds $2 text[], that end at another moment in zone $3 with weeks that begin on $4: when
-- they end now, and then. What stretch_windows() would do.
SELECT * FROM (
    SELECT b.name, b.ends, CASE WHEN n.starts < b.ends THEN n.ends ELSE b.ends END AS until
    FROM unnest($2::text[]) WITH ORDINALITY AS k (kind, place)
    CROSS JOIN LATERAL (
        SELECT * FROM windows w WHERE w.leaderboard = $1 AND w.kind = k.kind AND w.starts <= clock_timestamp() + interval '15 seconds'
        ORDER BY w.starts DESC LIMIT 1
    ) AS b CROSS JOIN LATERAL calendar_window(k.kind, $3, $4, b.ends) AS n
    WHERE b.ends > clock_timestamp() ORDER BY k.place
) AS running WHERE until <> ends

-- name: leaderboards
-- Every leaderboard that was ever defined, with the definitions that its standings were made by, how far those are that are
-- being made, and why the last ones could not be made. A next rule that is the live one is made, and waits for the store.
SELECT l.id, l.slug, l.source, s.slug AS source_slug, l.definition, l.removed_at IS NOT NULL AS is_removed, l.rule,
       nullif(l.next_rule, l.rule) AS next_rule, live.definition AS shown, next.definition AS next, next.done, next.todo,
       (SELECT r.failure FROM rules r WHERE r.leaderboard = l.id AND r.failure IS NOT NULL
        AND r.id > coalesce(l.rule, 0) ORDER BY r.id DESC LIMIT 1) AS failure
FROM leaderboards l JOIN leaderboards s ON s.id = l.source
LEFT JOIN rules live ON live.id = l.rule
LEFT JOIN rules next ON next.id = l.next_rule AND l.next_rule IS DISTINCT FROM l.rule
ORDER BY l.id

-- name: leaderboard_defined
-- $1 slug, $2 definition, $3 the source's id: NULL for its own submissions. Brings back one that was removed.
INSERT INTO leaderboards AS l (id, slug, source, definition)
SELECT given.id, $1, coalesce($3::int, given.id), $2::jsonb
FROM (SELECT coalesce((SELECT id FROM leaderboards WHERE slug = $1),
                      nextval(pg_get_serial_sequence('leaderboards', 'id'))::int) AS id) AS given
ON CONFLICT (slug) DO UPDATE SET definition = excluded.definition, source = excluded.source, removed_at = NULL,
    updated_at = clock_timestamp()
RETURNING id, source

-- name: leaderboard_removed
-- $1 id. Its transactions stay, and so do its windows.
UPDATE leaderboards SET removed_at = clock_timestamp(), updated_at = clock_timestamp(), rule = NULL, next_rule = NULL WHERE id = $1

-- name: rules_retired
-- Standings of leaderboard $1 that are shown ($2) or being made are no more.
WITH retired AS (
    UPDATE rules SET state = 'retired', updated_at = clock_timestamp()
    WHERE leaderboard = $1 AND state <> 'retired' AND ($2 OR state = 'building')
)
UPDATE leaderboards SET rule = CASE WHEN $2 THEN NULL ELSE rule END, next_rule = CASE WHEN next_rule = rule AND NOT $2 THEN rule END
WHERE id = $1

-- name: failure_mended
-- Leaderboard $1 is changed: what could not be made before is of no account any more.
UPDATE rules SET failure = NULL WHERE leaderboard = $1 AND failure IS NOT NULL

-- name: rule_kept
-- Standings $1 go on under definition $2, which needs no others, in windows of $3 text[] kinds. Where they are those of default for
-- all time and the weeks too, they stay that: the store has the boards by the versions of these rows.
UPDATE rules SET definition = $2::jsonb, kinds = CASE WHEN leaderboard = 1 AND kinds @> '{all_time}' AND NOT $3::text[] @> '{all_time}'
           THEN '{all_time,week}'::text[] || $3::text[] ELSE $3::text[] END,
       updated_at = clock_timestamp()
WHERE id = $1

-- name: rule_kinds
-- The kinds of windows that standings $1 have.
SELECT kinds FROM rules WHERE id = $1

-- name: rule_begun
-- Standings of leaderboard $1 by definition $2 that are to be made: $3 operator, $4 ascending, $5 kinds; of default those too that
-- the shown ones have beside its tables.
WITH made AS (
    INSERT INTO rules (leaderboard, source, operator, ascending, kinds, definition, state)
    SELECT l.id, l.source, $3, $4, CASE WHEN l.id = 1 AND r.kinds @> '{all_time}' AND NOT $5::text[] @> '{all_time}'
           THEN '{all_time,week}'::text[] || $5::text[] ELSE $5::text[] END, $2::jsonb, 'building'
    FROM leaderboards l LEFT JOIN rules r ON r.id = l.rule WHERE l.id = $1
    RETURNING id
)
UPDATE leaderboards l SET next_rule = made.id, updated_at = clock_timestamp() FROM made WHERE l.id = $1 RETURNING made.id

-- name: round_begun
-- Heads of sources $1 int[] must be marked anew.
UPDATE leaderboards SET round = round + 1 WHERE id = ANY ($1::int[])

-- name: revision_moved
UPDATE catalogue SET revision = revision + 1

-- name: hidden_from_source
-- Whoever is hidden from source $1 altogether: in the deployment, or on it.
SELECT ARRAY(
    SELECT user_id FROM bans WHERE leaderboard IN (0, $1)
    UNION
    -- deleted, or hidden by a server of before, which has no other word for it
    SELECT t.user_id FROM user_total_scores t
    WHERE t.hidden AND NOT EXISTS (SELECT FROM bans b WHERE b.user_id = t.user_id AND b.leaderboard = 1)
    UNION
    SELECT t.user_id FROM user_total_scores t JOIN users u ON u.id = t.user_id WHERE t.hidden AND u.deleted_at IS NOT NULL
)

-- name: source_shown
-- Source $1 was none for a while: whoever is none of $2 bigint[] users is hidden no more.
UPDATE heads SET hidden = false WHERE source = $1 AND hidden AND user_id NOT IN (SELECT unnest($2::bigint[]))

-- name: source_hidden
-- Source $1 is one by now: those who are hidden from it have a head as well.
INSERT INTO heads (source, user_id, hidden)
SELECT $1::int, user_id, true FROM unnest($2::bigint[]) AS u (user_id) ORDER BY user_id
ON CONFLICT (source, user_id) DO UPDATE SET hidden = true

-- name: banned_from
-- Whoever is banned from leaderboard $1.
SELECT ARRAY(SELECT user_id FROM bans WHERE leaderboard = $1)

-- name: derived_shown
-- Leaderboard $1 was not of source $2 for a while: whoever is none of $3 bigint[] users, who are banned from it, is shown on it.
UPDATE heads h SET hidden_on = array_remove(h.hidden_on, $1::int)
FROM (SELECT user_id FROM heads WHERE source = $2 AND hidden_on @> ARRAY[$1::int] ORDER BY user_id FOR NO KEY UPDATE) AS locked
WHERE h.source = $2 AND h.user_id = locked.user_id AND h.user_id NOT IN (SELECT unnest($3::bigint[]))

-- name: derived_shown_of_default
-- The same where that source is default.
UPDATE user_total_scores h SET hidden_on = array_remove(h.hidden_on, $1::int)
FROM (SELECT user_id FROM user_total_scores WHERE hidden_on @> ARRAY[$1::int] ORDER BY user_id FOR NO KEY UPDATE) AS locked
WHERE h.user_id = locked.user_id AND NOT EXISTS (SELECT FROM bans b WHERE b.user_id = h.user_id AND b.leaderboard = $1)

-- name: derived_hidden
-- Leaderboard $1 is of source $2 by now: the $3 bigint[] users who are banned from it are known by the source's heads.
INSERT INTO heads AS h (source, user_id, hidden_on)
SELECT $2::int, user_id, ARRAY[$1::int] FROM unnest($3::bigint[]) AS u (user_id) ORDER BY user_id
ON CONFLICT (source, user_id) DO UPDATE SET hidden_on = h.hidden_on || excluded.hidden_on
WHERE NOT h.hidden_on @> excluded.hidden_on

-- name: derived_hidden_of_default
-- The same where that source is default.
INSERT INTO user_total_scores AS h (user_id, hidden_on)
SELECT user_id, ARRAY[$1::int] FROM bans WHERE leaderboard = $1 ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET hidden_on = h.hidden_on || $1::int
WHERE NOT h.hidden_on @> ARRAY[$1::int]

-- name: windows_of_now
-- The windows of leaderboard $1 and $2 text[] kinds that hold now are there.
SELECT make_window($1, kind, clock_timestamp()) FROM unnest($2::text[]) AS k (kind) WHERE kind <> 'season'

-- name: windows_of_next
-- And so are the ones after them.
SELECT make_window($1, k.kind, w.ends) FROM unnest($2::text[]) AS k (kind) CROSS JOIN window_at($1, k.kind, clock_timestamp()) AS w
WHERE isfinite(w.ends) AND k.kind <> 'season'

-- name: seasons
-- The seasons of leaderboard $1, in order; whether one has begun, or may have scores by a sender's clock, and has ended.
SELECT id, name, starts, ends, starts <= clock_timestamp() + interval '15 seconds' AS has_begun, ends <= clock_timestamp() AS has_ended
FROM windows WHERE leaderboard = $1 AND kind = 'season' ORDER BY starts

-- name: seasons_gone
-- $1 leaderboard, $2 text[] names.
DELETE FROM windows WHERE leaderboard = $1 AND kind = 'season' AND name = ANY ($2::text[])

-- name: season_ends
-- $1 leaderboard, $2 name, $3 moment.
UPDATE windows SET ends = $3 WHERE leaderboard = $1 AND kind = 'season' AND name = $2

-- name: season_made
-- $1 leaderboard, $2 name, $3 and $4 its start and end.
INSERT INTO windows (leaderboard, kind, name, starts, ends) VALUES ($1, 'season', $2, $3, $4)

-- name: definition_audit
-- $1 actor, $2 action, $3 detail.
INSERT INTO audit (actor, action, detail) VALUES ($1, $2, $3::jsonb)
