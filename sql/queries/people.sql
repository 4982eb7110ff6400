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
-- $1 user id.
SELECT u.id, u.email, u.username, u.created_at, coalesce(t.hidden, false) AS banned
FROM users u LEFT JOIN user_total_scores t ON t.user_id = u.id WHERE u.id = $1 AND u.deleted_at IS NULL

-- name: rename
-- $1 user id, $2 username: one statement, with its outbox row. No row where there is no such user; `outbox_id` is NULL where
-- the name is as it was. Locks: the user, then closed weeks in order, here and wherever both are changed.
WITH renamed AS (
    UPDATE users SET username = $2, version = version + 1, updated_at = clock_timestamp()
    WHERE id = $1 AND deleted_at IS NULL AND username <> $2 RETURNING id
), moved AS (
    UPDATE closed_weeks c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM (SELECT week FROM closed_weeks
          WHERE week IN (SELECT w.week FROM user_weekly_scores w JOIN renamed p ON w.user_id = p.id)
          ORDER BY week FOR UPDATE) AS locked
    WHERE c.week = locked.week
), pending AS (
    INSERT INTO outbox (kind, user_ids) SELECT 'rename', ARRAY[id] FROM renamed RETURNING id
)
SELECT u.id, (SELECT id FROM pending) AS outbox_id FROM users u WHERE u.id = $1 AND u.deleted_at IS NULL

-- name: hide
-- First statement of a ban or deletion ($2 true), or of its end (false): takes the total's lock, by which every batch of
-- this user waits or has ended, and moves its version past all of theirs. $1 user id.
INSERT INTO user_total_scores AS t (user_id, hidden) VALUES ($1, $2)
ON CONFLICT (user_id) DO UPDATE SET hidden = $2, version = t.version + 1, updated_at = clock_timestamp()

-- name: is_hidden
-- Whether a user is banned or deleted; takes the total's lock, where there is a total. $1 user id.
SELECT hidden FROM user_total_scores WHERE user_id = $1 FOR UPDATE

-- name: hidden_followup
-- Second statement: sees all that was committed before the lock. Moves the versions of the user's weeks, closed boards and
-- profile, and leaves the outbox row. $1 user id, $2 kind.
WITH weeks AS (
    UPDATE user_weekly_scores SET version = version + 1 WHERE user_id = $1
), profile AS (
    UPDATE users SET version = version + 1, updated_at = clock_timestamp() WHERE id = $1 RETURNING id
), moved AS (
    UPDATE closed_weeks c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM (SELECT week FROM closed_weeks
          WHERE week IN (SELECT w.week FROM user_weekly_scores w JOIN profile p ON w.user_id = p.id)
          ORDER BY week FOR UPDATE) AS locked
    WHERE c.week = locked.week
)
INSERT INTO outbox (kind, user_ids) VALUES ($2, ARRAY[$1::bigint]) RETURNING id

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

-- name: transactions
-- A user's log, newest first: $1 user id, $2 ids below this, $3 limit. `+ 0` names the index made for it.
SELECT id, submission_id, score_added, reason, created_at FROM user_score_transactions
WHERE user_id + 0 = $1 AND id < $2 ORDER BY id DESC LIMIT $3
