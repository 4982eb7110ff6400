-- name: imported_users
-- The users of players by the addresses that their names give ($1 text[] addresses, none twice, $2 text[] usernames): made
-- where missing. No row where a concurrent statement is just making that user: ask again. The two parts are not joined to
-- what was given: planned for arrays of unknown length, that becomes a loop in a loop.
WITH made AS (
    -- Looked for first: a conflict would use up an id each time.
    INSERT INTO users (email, username)
    SELECT g.email, g.username FROM unnest($1::text[], $2::text[]) AS g (email, username)
    WHERE NOT EXISTS (SELECT FROM users u WHERE lower(u.email COLLATE "C") = g.email) ORDER BY g.email
    ON CONFLICT (lower(email COLLATE "C"), email_place) DO NOTHING RETURNING id, email
)
SELECT email, id AS user_id, true AS is_new FROM made
UNION ALL
SELECT lower(email COLLATE "C"), id, false FROM users WHERE lower(email COLLATE "C") = ANY ($1::text[])

-- name: users_of_addresses
-- Which users have the addresses $1 text[], all small.
SELECT lower(email COLLATE "C"), id FROM users WHERE lower(email COLLATE "C") = ANY ($1::text[])

-- name: import_owes
-- The one outbox row of a running import, in place of the one before it: $1 its id (NULL: there was none), $2 date[] closed
-- weeks whose views it has yet to refresh. A new one with every batch, so its age says whether the import lives, and
-- whoever has read the one before removes nothing by its id.
WITH gone AS (
    DELETE FROM outbox WHERE id = $1
)
INSERT INTO outbox (kind, user_ids, weeks) VALUES ('import', '{}', $2) RETURNING id

-- name: import_owed
-- What imports have yet to refresh, be they at work or not: one that is has a row anew with its next batch.
SELECT id, weeks FROM outbox WHERE kind = 'import' ORDER BY id
