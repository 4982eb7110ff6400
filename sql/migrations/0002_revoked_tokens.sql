-- tokens that were taken back before they expired
-- depends: 0001_initial

-- migrate: apply
CREATE TABLE revoked_tokens (
    -- the token's own id (jti); never the token
    token_id   TEXT PRIMARY KEY,
    -- when it would have expired by itself: from then on the row is not needed, and the next revocation removes it
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- migrate: rollback
DROP TABLE revoked_tokens;
