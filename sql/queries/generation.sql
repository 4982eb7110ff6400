-- name: generation
-- One row: mark, when it was restored, the place of its writing, the place it is in, a number that moves on with each restore
-- and failover that was noticed, the last sign of life in it (milliseconds since 1970), the last user, and how far the logs of
-- scores have come together: of default by its last transaction, of the others by the numbers that were given out.
SELECT g.mark, g.restored_at, g.place, ledger_place() AS here, coalesce(g.first_version, 0) AS term,
       coalesce(extract(epoch FROM g.used_at) * 1000, 0)::bigint AS used_ms,
       (SELECT coalesce(max(id), 0) FROM users) AS users,
       (SELECT coalesce(max(id), 0) FROM user_score_transactions) + (SELECT last_value FROM score_transactions_id_seq) AS scores
FROM (VALUES (true)) AS row (one) LEFT JOIN generation g USING (one)

-- name: generation_begun
-- A ledger that nobody has served from begins here, with the mark $1.
INSERT INTO generation AS g (mark, place) VALUES ($1, ledger_place())
ON CONFLICT (one) DO UPDATE SET mark = excluded.mark, place = excluded.place WHERE g.place IS NULL

-- name: generation_renewed
-- A copy of the ledger of mark $1 and place $2 goes on here. $3 is the new mark, NULL to keep the old one and all tokens. A
-- row where that was not done yet. What is given out from now on begins beyond all that may have been given out and is not
-- known here: at the milliseconds since 1970, for less than one a millisecond is given out.
WITH moment AS (
    SELECT least(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, 45000000000000) AS ms
), renewed AS (
    UPDATE generation SET mark = coalesce($3, mark), place = ledger_place(),
           restored_at = CASE WHEN $3::text IS NULL THEN restored_at ELSE clock_timestamp() END,
           first_version = greatest(first_version + 1000000, (SELECT ms FROM moment)),
           first_epoch = 1296 + floor(random() * 40000)::bigint, epoch = ''
    WHERE mark IS NOT DISTINCT FROM $1 AND place IS NOT DISTINCT FROM $2
    RETURNING first_version
), weeks AS (
    UPDATE closed_weeks SET version = greatest(version + 1, (SELECT first_version FROM renewed)), updated_at = clock_timestamp()
    WHERE EXISTS (SELECT FROM renewed)
), others AS (
    UPDATE contents SET epoch = '' WHERE EXISTS (SELECT FROM renewed)
), boards AS (
    -- Versions of closed boards have this as a part; a batch that was put together before must not pass for one of now.
    UPDATE catalogue SET revision = greatest(revision + 1000000, (SELECT ms FROM moment)),
           shown = greatest(shown + 1000000, (SELECT ms FROM moment))
    WHERE EXISTS (SELECT FROM renewed)
)
SELECT setval('users_id_seq', greatest((SELECT last_value FROM users_id_seq) + 1000000, ms)),
       setval('user_total_scores_id_seq', greatest((SELECT last_value FROM user_total_scores_id_seq) + 1000000, ms)),
       setval('audit_id_seq', greatest((SELECT last_value FROM audit_id_seq) + 1000000, ms)),
       setval('outbox_id_seq', greatest((SELECT last_value FROM outbox_id_seq) + 1000000, ms * 100)),
       setval('user_score_transactions_id_seq',
              greatest((SELECT last_value FROM user_score_transactions_id_seq) + 1000000, ms * 100)),
       setval('score_transactions_id_seq', greatest((SELECT last_value FROM score_transactions_id_seq) + 1000000, ms * 100)),
       setval('windows_id_seq', greatest((SELECT last_value FROM windows_id_seq) + 1000000, ms)),
       setval('rules_id_seq', (SELECT last_value FROM rules_id_seq) + 1000),
       setval('leaderboards_id_seq', (SELECT last_value FROM leaderboards_id_seq) + 1000)
FROM moment, renewed

-- name: content_claimed
-- A number for whoever makes the store's content anew, higher than any before.
INSERT INTO generation AS g (claims) VALUES (1) ON CONFLICT (one) DO UPDATE SET claims = g.claims + 1 RETURNING claims

-- name: content_named
-- The store's content of epoch $1, made under the claim $2, is current from now on, unless a later one is. A row where it is.
UPDATE generation SET epoch = $1, claim = $2, used_at = clock_timestamp() WHERE claim < $2 RETURNING epoch

-- name: content_named_now
-- The epoch of the content that is current ('': none is, NULL: nobody has said), when it was last used, and whether lately; and
-- the epoch of the other content that somebody reaches these days, NULL where nobody does.
SELECT g.epoch, g.used_at, coalesce(g.used_at BETWEEN clock_timestamp() - interval '4 seconds' AND clock_timestamp(), false),
       CASE WHEN g.stray_at BETWEEN clock_timestamp() - interval '10 seconds' AND clock_timestamp() THEN g.stray END
FROM (VALUES (true)) AS row (one) LEFT JOIN generation g USING (one)

-- name: content_strayed
-- A process reaches content of epoch $1, which is not the current one.
UPDATE generation SET stray = $1, stray_at = clock_timestamp()

-- name: content_used
-- The current content is in use, and it is that of epoch $1 where nobody has said yet which one it is.
INSERT INTO generation AS g (epoch, used_at) VALUES ($1, clock_timestamp())
ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, used_at = excluded.used_at WHERE coalesce(g.epoch, $1) = $1

-- name: ledger_is_in_place
-- Whether this is the ledger that was served from, as far as its place tells.
SELECT ledger_is_in_place()
