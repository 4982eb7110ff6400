-- name: imported_users
-- The users of players by the addresses that their names give ($1 text[] addresses, none twice, $2 text[] usernames): made
-- where missing. No row where a concurrent statement is just making that user: ask again. The two parts are not joined to
-- what was given: planned for arrays of unknown length, that becomes a loop in a loop.
WITH made AS (
    -- Looked for first: a conflict would use up an id each time.
    INSERT INTO users (email, username)
    SELECT g.email, g.username FROM unnest($1::text[], $2::text[]) AS g (email, username)
    WHERE NOT EXISTS (SELECT FROM users u WHERE lower(u.email COLLATE "C") = g.email) AND ledger_is_in_place() ORDER BY g.email
    ON CONFLICT (lower(email COLLATE "C"), email_place) DO NOTHING RETURNING id, email
)
SELECT email, id AS user_id, true AS is_new FROM made
UNION ALL
SELECT lower(email COLLATE "C"), id, false FROM users WHERE lower(email COLLATE "C") = ANY ($1::text[])

-- name: users_of_addresses
-- Which users have the addresses $1 text[], all small.
SELECT lower(email COLLATE "C"), id FROM users WHERE lower(email COLLATE "C") = ANY ($1::text[])
