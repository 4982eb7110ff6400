-- name: register
-- A new user, or no row where the e-mail is taken: $1 email, $2 password hash, $3 username. Nor in a copy of the ledger that
-- is not known as such.
INSERT INTO users (email, password_hash, username)
SELECT $1::text, $2::text, $3::text
WHERE NOT EXISTS (SELECT FROM users WHERE lower(email COLLATE "C") = lower($1 COLLATE "C")) AND ledger_is_in_place()
ON CONFLICT (lower(email COLLATE "C"), email_place) DO NOTHING RETURNING id

-- name: credentials
-- $1 email. Where an address has several users (see email_place), the one who wrote it like this, else the first.
SELECT id, password_hash FROM users WHERE lower(email COLLATE "C") = lower($1 COLLATE "C") AND deleted_at IS NULL
ORDER BY email COLLATE "C" = $1 DESC, email_place LIMIT 1

-- name: person
-- $1 user id. Who is hidden on default alone, by a ban from there, is not banned.
SELECT u.id, u.email, u.username, u.created_at,
       coalesce(t.hidden, false) AND NOT EXISTS (SELECT FROM bans b WHERE b.user_id = u.id AND b.leaderboard = 1)
           OR EXISTS (SELECT FROM bans b WHERE b.user_id = u.id AND b.leaderboard = 0) AS banned
FROM users u LEFT JOIN user_total_scores t ON t.user_id = u.id WHERE u.id = $1 AND u.deleted_at IS NULL

-- name: rename
-- $1 user id, $2 username: whether it is another name than before. No row where there is no such user. From here on no batch
-- brings a first score of the user anywhere that the next statement would not see.
WITH renamed AS (
    UPDATE users SET username = $2, version = version + 1, updated_at = clock_timestamp()
    WHERE id = $1 AND deleted_at IS NULL AND username <> $2 RETURNING id
)
SELECT EXISTS (SELECT FROM renamed) FROM users u WHERE u.id = $1 AND u.deleted_at IS NULL

-- name: renamed
-- The next statement after `rename` of user $1: an outbox row for every source of which the user has scores. Locks: the user (who
-- is), then closed weeks in order, then the catalogue, here and wherever more than one of them is changed.
WITH moved AS (
    UPDATE closed_weeks c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM (SELECT week FROM closed_weeks
          WHERE week IN (SELECT w.week FROM user_weekly_scores w WHERE w.user_id = $1) ORDER BY week FOR UPDATE) AS locked
    WHERE c.week = locked.week RETURNING c.week
), shown AS (
    UPDATE catalogue SET shown = shown + 1 WHERE (SELECT count(*) FROM moved) >= 0
)
INSERT INTO outbox (kind, user_ids, source)
SELECT 'rename', ARRAY[$1::bigint], s.source
FROM (
    SELECT 1 AS source UNION ALL
    SELECT l.id FROM leaderboards l
    WHERE l.id <> 1 AND l.id = l.source AND EXISTS (SELECT FROM scores WHERE source = l.id AND user_id = $1)
) AS s RETURNING id, source

-- name: leaderboard_source
-- $1 slug: its id, and the source that it ranks the submissions of.
SELECT id, source FROM leaderboards WHERE slug = $1 AND removed_at IS NULL

-- name: heads_held
-- First statement of whatever hides a user $1 or shows them again, on sources $2 int[] (NULL: all), after while_sources_stay():
-- locks the heads that are there, in order, as a batch does before it makes any.
SELECT source FROM heads
WHERE user_id = $1 AND source = ANY (ARRAY(
    SELECT id FROM leaderboards WHERE id <> 1 AND id = source AND ($2::int[] IS NULL OR id = ANY ($2))
)) ORDER BY source FOR NO KEY UPDATE

-- name: player_held
-- The next, of the same: takes all locks by which every batch of this user waits or has ended, and makes the rows that carry
-- them: heads in order, then default's total. A head is born with all that there is to build for it.
WITH held AS (
    INSERT INTO heads AS h (source, user_id, built)
    SELECT id, $1::bigint, round FROM leaderboards
    WHERE id <> 1 AND id = source AND ($2::int[] IS NULL OR id = ANY ($2)) ORDER BY id
    ON CONFLICT (source, user_id) DO UPDATE SET hidden = h.hidden RETURNING source
), total AS (
    INSERT INTO user_total_scores AS t (user_id, built)
    SELECT $1, round FROM leaderboards
    WHERE id = 1 AND ($2::int[] IS NULL OR 1 = ANY ($2)) AND (SELECT count(*) FROM held) >= 0
    ON CONFLICT (user_id) DO UPDATE SET hidden = t.hidden RETURNING user_id
)
SELECT (SELECT count(*) FROM held) + (SELECT count(*) FROM total)

-- name: ban_of_before
-- Whoever was hidden by a server of before, which has no other word for it, is banned: $1 user id.
INSERT INTO bans (user_id, leaderboard)
SELECT t.user_id, 0 FROM user_total_scores t JOIN users u ON u.id = t.user_id
WHERE t.user_id = $1 AND t.hidden AND u.deleted_at IS NULL
      AND NOT EXISTS (SELECT FROM bans b WHERE b.user_id = t.user_id AND b.leaderboard IN (0, 1))
ON CONFLICT DO NOTHING

-- name: is_banned
-- Whether user $1 is banned from leaderboard $2 (0: the deployment), also by a server of before.
SELECT EXISTS (SELECT FROM bans WHERE user_id = $1 AND leaderboard = $2) OR $2 = 0 AND EXISTS (
    SELECT FROM user_total_scores t JOIN users u ON u.id = t.user_id
    WHERE t.user_id = $1 AND t.hidden AND u.deleted_at IS NULL
          AND NOT EXISTS (SELECT FROM bans b WHERE b.user_id = t.user_id AND b.leaderboard = 1)
)

-- name: banned
-- $1 user id, $2 leaderboard (0: the deployment).
INSERT INTO bans (user_id, leaderboard) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: unbanned
-- $1 user id, $2 leaderboard (0: the deployment).
DELETE FROM bans WHERE user_id = $1 AND leaderboard = $2

-- name: hidden_anew
-- Last statement: sees all that was committed before the locks. Hides user $1 on the sources $2 int[] (NULL: all) as bans and
-- deletion say, moves the versions of their rows on boards that are live, of closed boards and of their profile, and leaves
-- an outbox row of kind $3 for default, where it is among them, and every other source of which the user has scores. Locks
-- beside those that are held: the user, closed weeks in order, the catalogue.
WITH sources AS MATERIALIZED (
    SELECT id FROM leaderboards WHERE id = source AND ($2::int[] IS NULL OR id = ANY ($2))
), everywhere AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM bans WHERE user_id = $1 AND leaderboard = 0)
           OR EXISTS (SELECT FROM users WHERE id = $1 AND deleted_at IS NOT NULL) AS hidden
), on_source AS MATERIALIZED (
    SELECT l.source, bool_or(l.id = l.source) AS itself,
           coalesce(array_agg(l.id ORDER BY l.id) FILTER (WHERE l.id <> l.source), '{}') AS others
    FROM bans b JOIN leaderboards l ON l.id = b.leaderboard WHERE b.user_id = $1 GROUP BY l.source
), of_others AS (
    UPDATE heads h SET hidden = (SELECT hidden FROM everywhere) OR coalesce((SELECT itself FROM on_source o WHERE o.source = h.source), false),
           hidden_on = coalesce((SELECT others FROM on_source o WHERE o.source = h.source), '{}')
    WHERE h.user_id = $1 AND h.source = ANY (ARRAY(SELECT id FROM sources)) RETURNING h.source
), of_default AS (
    UPDATE user_total_scores t SET version = version + 1, updated_at = clock_timestamp(),
           hidden = (SELECT hidden FROM everywhere) OR coalesce((SELECT itself FROM on_source WHERE source = 1), false),
           hidden_on = coalesce((SELECT others FROM on_source WHERE source = 1), '{}')
    WHERE user_id = $1 AND EXISTS (SELECT FROM sources WHERE id = 1) RETURNING user_id
), weeks AS (
    UPDATE user_weekly_scores SET version = version + 1 WHERE user_id = $1 AND EXISTS (SELECT FROM of_default)
), rows AS (
    -- What closed long ago has no version but its board's.
    UPDATE scores s SET version = version + 1
    WHERE s.source = ANY (ARRAY(SELECT id FROM sources)) AND s.user_id = $1 AND EXISTS (
        SELECT FROM rules r JOIN windows w ON w.leaderboard = r.leaderboard AND w.id = s."window"
        WHERE r.id = s.rule AND r.state <> 'retired' AND w.ends > clock_timestamp() - interval '1 day'
    ) RETURNING s.source
), profile AS (
    UPDATE users SET version = version + 1, updated_at = clock_timestamp() WHERE id = $1 RETURNING id
), moved AS (
    UPDATE closed_weeks c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM (SELECT week FROM closed_weeks
          WHERE week IN (SELECT w.week FROM user_weekly_scores w JOIN profile p ON w.user_id = p.id WHERE EXISTS (SELECT FROM of_default))
          ORDER BY week FOR UPDATE) AS locked
    WHERE c.week = locked.week RETURNING c.week
), shown AS (
    UPDATE catalogue SET shown = shown + 1 WHERE (SELECT count(*) FROM moved) >= 0
)
INSERT INTO outbox (kind, user_ids, source)
SELECT $3, ARRAY[$1::bigint], source FROM (SELECT source FROM rows UNION SELECT 1 FROM of_default) AS s ORDER BY source
RETURNING id, source

-- name: forget
-- Makes a user's row anonymous; an imported player's digest stays, so that importing again does not bring them back.
UPDATE users SET email = CASE WHEN email LIKE '%@imported.invalid' THEN email END, password_hash = NULL,
       username = 'deleted', deleted_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE id = $1 AND deleted_at IS NULL

-- name: user_exists
-- Whether there is or was a user $1.
SELECT 1 FROM users WHERE id = $1

-- name: person_exists
SELECT 1 FROM users WHERE id = $1 AND deleted_at IS NULL

-- name: audit
-- $1 actor, $2 action, $3 user id, $4 detail.
INSERT INTO audit (actor, action, user_id, detail) VALUES ($1, $2, $3, $4)

-- name: transactions_of
-- The same of another leaderboard's log: $1 the leaderboard, $2 user id, $3 ids below this, $4 limit.
SELECT id, submission_id, score, reason, created_at FROM score_transactions
WHERE source = $1 AND user_id + 0 = $2 AND id < $3 ORDER BY id DESC LIMIT $4

-- name: transactions
-- A user's log, newest first: $1 user id, $2 ids below this, $3 limit. `+ 0` names the index made for it.
SELECT id, submission_id, score_added, reason, created_at FROM user_score_transactions
WHERE user_id + 0 = $1 AND id < $2 ORDER BY id DESC LIMIT $3
