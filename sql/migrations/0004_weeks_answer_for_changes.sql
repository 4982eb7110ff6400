-- a closed week counts the changes of its scores, so that a view which lacks one is known
-- depends: 0002_revoked_tokens

-- migrate: apply
ALTER TABLE closed_weeks
    -- Statements that changed the week's scores since it ended, counted by these statements themselves. NULL: nobody
    -- counts, for the week turned out not to be over.
    ADD COLUMN changes BIGINT DEFAULT 0,
    -- How many of `changes` the view is known to hold (`filled` is no longer used). NULL: it does not answer for the week.
    ADD COLUMN holds BIGINT,
    -- `holds` as it was when the store last heard what the view has.
    ADD COLUMN told BIGINT,
    -- An import is under way: until then nobody makes the view anew at each of its batches.
    ADD COLUMN quiet_until TIMESTAMPTZ;
-- Whether a view that was made before changes were counted has them all, nobody knows: each is made anew, once.
UPDATE closed_weeks SET holds = -1, told = -1;

-- migrate: rollback
ALTER TABLE closed_weeks DROP COLUMN changes, DROP COLUMN holds, DROP COLUMN told, DROP COLUMN quiet_until;
