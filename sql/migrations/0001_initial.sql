-- the ledger: people, the audit log of scores, totals, weeks, outbox, closed weeks
-- depends:

-- migrate: apply
CREATE TABLE users (
    id            BIGSERIAL PRIMARY KEY,
    -- NULL once the person is deleted; an imported player's is a digest under imported.invalid
    email         TEXT,
    -- NULL: this user cannot log in (imported, or deleted)
    password_hash TEXT,
    username      VARCHAR(64) NOT NULL,
    -- counts changes of what a board shows of the user
    version       BIGINT NOT NULL DEFAULT 1,
    -- a deleted user's row stays: it keeps late batches from bringing the person back
    deleted_at    TIMESTAMPTZ,
    created_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT users_id_is_exact_in_javascript CHECK (id BETWEEN 1 AND 9007199254740991)
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

-- The audit log: rows never change. No foreign key to users: the batch statement joins them, users are never
-- removed, and a key check would lock each user's row against the order of locks (totals first).
CREATE TABLE user_score_transactions (
    id            BIGSERIAL PRIMARY KEY,
    user_id       BIGINT NOT NULL,
    score_added   INT NOT NULL,
    reason        VARCHAR(255),
    submission_id VARCHAR(64) COLLATE "C" NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX user_score_transactions_submission ON user_score_transactions (user_id, submission_id);
-- For a week's view; scores arrive nearly in order of time, so a block range index is a few pages.
CREATE INDEX user_score_transactions_created_at ON user_score_transactions USING brin (created_at) WITH (autosummarize = on);
-- For a user's log. An expression, so that no plan, however little is known of the table, takes this index for the look-up
-- of one submission: by it that look-up reads all the user ever sent.
CREATE INDEX user_score_transactions_log ON user_score_transactions ((user_id + 0), id);

CREATE TABLE user_total_scores (
    id          BIGSERIAL PRIMARY KEY,
    user_id     BIGINT NOT NULL UNIQUE,
    -- NULL until the first score: a user who was banned before it has a row, but no place
    total_score BIGINT,
    version     BIGINT NOT NULL DEFAULT 1,
    -- banned or deleted: on no board
    hidden      BOOLEAN NOT NULL DEFAULT false,
    updated_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_total_scores_exact_in_a_double
        CHECK (total_score BETWEEN -9007199254740992 AND 9007199254740992)
) WITH (fillfactor = 70);
-- Who is banned or deleted, few among many: closed weeks leave them out when they are read.
CREATE INDEX user_total_scores_hidden ON user_total_scores (user_id) WHERE hidden;

CREATE TABLE user_weekly_scores (
    week    DATE NOT NULL,
    user_id BIGINT NOT NULL,
    score   BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (week, user_id),
    CONSTRAINT user_weekly_scores_monday CHECK (extract(isodow FROM week) = 1),
    CONSTRAINT user_weekly_scores_exact_in_a_double CHECK (score BETWEEN -9007199254740992 AND 9007199254740992)
) WITH (fillfactor = 70);
CREATE INDEX user_weekly_scores_user ON user_weekly_scores (user_id, week);

-- One row per statement that changed what a board shows, removed once the store has it.
CREATE TABLE outbox (
    id         BIGSERIAL PRIMARY KEY,
    kind       TEXT NOT NULL,
    user_ids   BIGINT[] NOT NULL,
    weeks      DATE[] NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- One row per week that has its view. `version` counts what the closed board shows.
CREATE TABLE closed_weeks (
    week       DATE PRIMARY KEY,
    version    BIGINT NOT NULL DEFAULT 1,
    -- version at which the view was last filled from the transactions
    filled     BIGINT NOT NULL DEFAULT 0,
    players    BIGINT NOT NULL DEFAULT 0,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- How often the content of a store's run was made: with the run's name, the epoch. Never given out twice.
CREATE TABLE store_epochs (
    run TEXT PRIMARY KEY,
    n   BIGINT NOT NULL DEFAULT 1
);

-- Who did what to whom, and why: bans, corrections, deletions, revocations.
CREATE TABLE audit (
    id         BIGSERIAL PRIMARY KEY,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    user_id    BIGINT,
    detail     JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- migrate: rollback
DROP TABLE audit, store_epochs, closed_weeks, outbox, user_weekly_scores, user_total_scores, user_score_transactions, users;
