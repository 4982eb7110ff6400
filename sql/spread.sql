-- What `realtime migrate` does in a database with the extension Citus: the log, heads, scores and outbox rows of all sources
-- but default are spread over its nodes by source, so that a statement for one source has all of it on one node. They are
-- in a schema of their own, under the names that they have elsewhere; the tables of those names in `public` keep what is
-- default's, and so does everything else: nothing of default's is touched. To be run in one transaction, once.
SET LOCAL citus.multi_shard_modify_mode = 'sequential';
-- Servers that do not know of it write here until they start anew: they must not.
LOCK TABLE public.heads, public.score_transactions, public.scores, public.outbox IN EXCLUSIVE MODE;
CREATE SCHEMA spread;
CREATE TABLE spread.heads (LIKE public.heads INCLUDING ALL) WITH (fillfactor = 90);
CREATE TABLE spread.score_transactions (LIKE public.score_transactions INCLUDING ALL EXCLUDING IDENTITY);
CREATE TABLE spread.scores (LIKE public.scores INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE spread.outbox (
    source     INT NOT NULL,
    id         BIGINT NOT NULL,
    kind       TEXT NOT NULL,
    user_ids   BIGINT[] NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, id)
);
-- Ids come from the coordinator, with the batch: so they rise over all nodes, and stay as short as anywhere.
ALTER TABLE spread.score_transactions ALTER id SET DEFAULT nextval('score_transactions_id_seq');
ALTER TABLE spread.outbox ALTER id SET DEFAULT nextval('outbox_id_seq');
SELECT create_distributed_table('spread.heads', 'source');
SELECT create_distributed_table('spread.score_transactions', 'source', colocate_with => 'spread.heads');
SELECT create_distributed_table('spread.scores', 'source', colocate_with => 'spread.heads');
SELECT create_distributed_table('spread.outbox', 'source', colocate_with => 'spread.heads');
INSERT INTO spread.heads SELECT * FROM public.heads;
INSERT INTO spread.score_transactions SELECT * FROM public.score_transactions;
INSERT INTO spread.scores SELECT * FROM public.scores WHERE source <> 1;
INSERT INTO spread.outbox (source, id, kind, user_ids, created_at)
SELECT source, id, kind, user_ids, created_at FROM public.outbox WHERE source <> 1;
DELETE FROM public.heads;
DELETE FROM public.score_transactions;
DELETE FROM public.scores WHERE source <> 1;
DELETE FROM public.outbox WHERE source <> 1;
ALTER TABLE public.heads ADD CONSTRAINT heads_are_spread CHECK (source IS NULL);
ALTER TABLE public.score_transactions ADD CONSTRAINT score_transactions_are_spread CHECK (source IS NULL);
ALTER TABLE public.scores ADD CONSTRAINT scores_of_others_are_spread CHECK (source = 1);
ALTER TABLE public.outbox ADD CONSTRAINT outbox_of_others_is_spread CHECK (source = 1);

-- Records submissions to one source, on the node that has it: Citus hands the call on. Planned by Citus, a statement of that
-- many steps takes longer to plan than to run; so it is given as text ($2), and run on the source's own pieces of the tables, each
-- named in braces. What else the coordinator knows of the batch is in the lists that `spread_recorded` names.
CREATE FUNCTION spread.record_spread(
    source INT, statement TEXT, cleared BIGINT[], lock_timeout TEXT,
    users BIGINT[], submissions TEXT[], given BIGINT[], reasons TEXT[], describing JSONB[], places INT[], known BOOLEAN[], ids BIGINT[],
    asked TIMESTAMPTZ[], moments TIMESTAMPTZ[], states INT[], micros BIGINT[], firsts INT[], lasts INT[], lacks BOOLEAN[],
    of_rules INT[], of_windows BIGINT[], operators INT[], buildings BOOLEAN[], round INT, kind TEXT, outbox_id BIGINT,
    OUT ords BIGINT[], OUT verdicts TEXT[], OUT new_ords BIGINT[], OUT new_ids BIGINT[], OUT twins BIGINT[],
    OUT barred_sources INT[], OUT barred_users BIGINT[], OUT barred_on INT[], OUT new_users BIGINT[],
    OUT rules INT[], OUT windows BIGINT[], OUT row_users BIGINT[], OUT scores BIGINT[], OUT row_versions BIGINT[],
    OUT row_at BIGINT[], OUT row_at_ids BIGINT[], OUT row_metadata JSONB[], OUT fresh_places INT[], OUT lacking_places INT[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    named TEXT;
    piece BIGINT;
BEGIN
    PERFORM set_config('lock_timeout', record_spread.lock_timeout, true), set_config('enable_seqscan', 'off', true),
            set_config('citus.enable_manual_changes_to_shards', 'on', true);
    -- Planned by Citus, and first: from here on whoever moves the pieces waits for this transaction.
    DELETE FROM spread.outbox o WHERE o.source = record_spread.source AND o.id = ANY (record_spread.cleared);
    FOREACH named IN ARRAY ARRAY['heads', 'score_transactions', 'scores', 'outbox'] LOOP
        piece := get_shard_id_for_distribution_column(('spread.' || named)::regclass, record_spread.source);
        IF NOT EXISTS (SELECT FROM pg_dist_placement p WHERE p.shardid = piece AND p.groupid = (SELECT groupid FROM pg_dist_local_group)) THEN
            RAISE serialization_failure USING MESSAGE = format('source %s has moved to another node', record_spread.source);
        END IF;
        statement := replace(statement, '{' || named || '}', shard_name(('spread.' || named)::regclass, piece));
    END LOOP;
    EXECUTE statement INTO ords, verdicts, new_ords, new_ids, twins, barred_sources, barred_users, barred_on, new_users,
        rules, windows, row_users, scores, row_versions, row_at, row_at_ids, row_metadata, fresh_places, lacking_places
    USING record_spread.source, users, submissions, given, reasons, describing, places, known, ids, asked, moments, states, micros,
        firsts, lasts, lacks, of_rules, of_windows, operators, buildings, round, kind, outbox_id;
END $$;
-- Also in a transaction of several statements.
SELECT create_distributed_function(p.oid::regprocedure, '$1', colocate_with => 'spread.heads', force_delegation => true)
FROM pg_proc p WHERE p.oid = 'spread.record_spread'::regproc;
