-- name: revoked_tokens
-- Tokens that would be good if they had not been revoked.
SELECT token_id, expires_at FROM revoked_tokens WHERE expires_at > clock_timestamp()

-- name: revoke_again
-- Tokens $1 text[] that were revoked, and that this copy of the ledger knows nothing of; $2 their expiry.
INSERT INTO revoked_tokens (token_id, expires_at) SELECT * FROM unnest($1::text[], $2::timestamptz[]) ON CONFLICT DO NOTHING

-- name: revoke_token
-- $1 token id, $2 its expiry, and for the audit log, where it is new: $3 actor, $4 user id, $5 detail. Rows stay for good: a
-- clock that is ahead for a moment must not forget them, and they are few.
WITH revoked AS (
    INSERT INTO revoked_tokens (token_id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING token_id
)
INSERT INTO audit (actor, action, user_id, detail) SELECT $3, 'revoke', $4, $5::jsonb FROM revoked

-- name: audit_corrections
-- Corrections that are about to be handed in: $1 text[] actors, $2 bigint[] user ids, $3 jsonb[] details.
INSERT INTO audit (actor, action, user_id, detail)
SELECT actor, 'correct', user_id, detail FROM unnest($1::text[], $2::bigint[], $3::jsonb[]) AS c (actor, user_id, detail)
