-- Queries on what is spread over the nodes of a Citus deployment: see sql/spread.sql. A query for one source that is not here is
-- the one for all, in the schema `spread` (see `ledger.spread`). Whatever reads or writes a spread table names one source, so
-- that one node does it; only what looks for a source, or counts, asks all of them.

-- name: is_spread
SELECT to_regclass('spread.scores') IS NOT NULL

-- name: spread_prepared
-- What the coordinator knows of a batch for source $1: $2 timestamptz[] moments (NULL: now), $3 and $4 timestamptz[] starts and ends of
-- windows, as in record_scores; $5 text kind of outbox row, $6 bigint the catalogue's revision, $7 bigint[] user ids, one a
-- submission; $8 bigint[] outbox rows of the source that the store has by now, $9 text[] their partitions, $10 text[] epochs.
-- No row where the catalogue has another revision. Takes, before it looks at anything, the lock by which whoever makes standings
-- knows that scores are being recorded (see build_writers): until the transaction ends.
WITH writing AS (
    DELETE FROM score_transactions WHERE false
), moment AS MATERIALIZED (
    SELECT now, now + interval '5 seconds' AS latest  -- submissions.CLOCK_GRACE
    FROM clock_timestamp() AS now WHERE EXISTS (SELECT FROM catalogue WHERE revision = $6)
), places AS MATERIALIZED (
    SELECT p.place, coalesce(p.moment, m.now) AS moment,
           CASE WHEN coalesce(p.moment, m.now) >= p.ends THEN 1 WHEN coalesce(p.moment, m.now) < p.starts THEN 2
                WHEN p.moment > m.latest THEN 3 ELSE 0 END AS state
    FROM moment m, unnest($2::timestamptz[], $3::timestamptz[], $4::timestamptz[]) WITH ORDINALITY AS p (moment, starts, ends, place)
), targets AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY p.place, r.id, w.id) AS n, p.place, p.moment, r.leaderboard, r.id AS rule,
           r.state = 'building' AS building, w.id AS "window", w.ends <= m.now OR $5::text = 'import' AS ended, w.kind, w.name, w.starts, w.ends,
           CASE r.operator WHEN 'sum' THEN 0 WHEN 'count' THEN 1 WHEN 'last' THEN 2
                           ELSE CASE WHEN r.ascending THEN 3 ELSE 4 END END AS operator
    FROM moment m CROSS JOIN places p
    CROSS JOIN LATERAL (SELECT * FROM rules WHERE source = $1 AND state <> 'retired') AS r
    CROSS JOIN LATERAL unnest(r.kinds) AS k (kind)
    LEFT JOIN LATERAL (
        SELECT id, kind, name, starts, ends FROM windows WHERE leaderboard = r.leaderboard AND kind = k.kind AND starts <= p.moment
        ORDER BY starts DESC LIMIT 1
    ) AS w ON w.ends > p.moment
    WHERE w.id IS NOT NULL OR k.kind <> 'season'
)
SELECT date_trunc('week', moment.now AT TIME ZONE 'UTC')::date AS week, current_setting('lock_timeout') AS lock_timeout,
       (SELECT round FROM leaderboards WHERE id = $1) AS round, nextval('outbox_id_seq') AS outbox_id,
       ARRAY(SELECT EXISTS (SELECT FROM users u WHERE u.id = i.user_id AND u.deleted_at IS NULL)
             FROM unnest($7::bigint[]) WITH ORDINALITY AS i (user_id, ord) ORDER BY i.ord) AS known,
       ARRAY(SELECT nextval('score_transactions_id_seq') FROM generate_series(1, cardinality($7::bigint[]))) AS ids,
       ARRAY(SELECT r.id FROM unnest($8::bigint[], $9::text[], $10::text[]) AS r (id, partition, epoch)
             WHERE NOT EXISTS (SELECT FROM contents c WHERE c.partition = r.partition AND c.epoch <> r.epoch)) AS cleared,
       of_places.*, of_stretches.*, of_targets.*
FROM moment, (
    SELECT array_agg(moment ORDER BY place) AS moments, array_agg(state ORDER BY place) AS states,
           array_agg(micros(moment) ORDER BY place) AS micros
    FROM places
) AS of_places, (
    SELECT array_agg(coalesce(t.first, 1) ORDER BY p.place) AS firsts, array_agg(coalesce(t.last, 0) ORDER BY p.place) AS lasts,
           array_agg(coalesce(t.lacks, false) ORDER BY p.place) AS lacks
    FROM places p LEFT JOIN (
        SELECT place, min(n)::int AS first, max(n)::int AS last, bool_or("window" IS NULL) AS lacks FROM targets GROUP BY place
    ) AS t USING (place)
) AS of_stretches, (
    SELECT array_agg(place ORDER BY n) AS target_places, array_agg(moment ORDER BY n) AS target_moments,
           array_agg(leaderboard ORDER BY n) AS leaderboards, array_agg(rule ORDER BY n) AS rules,
           array_agg("window" ORDER BY n) AS windows, array_agg(operator ORDER BY n) AS operators,
           array_agg(building ORDER BY n) AS buildings, array_agg(ended ORDER BY n) AS ended, array_agg(kind ORDER BY n) AS kinds,
           array_agg(name ORDER BY n) AS names, array_agg(nullif(starts, '-infinity') ORDER BY n) AS starts,
           array_agg(nullif(ends, 'infinity') ORDER BY n) AS ends
    FROM targets
) AS of_targets

-- name: spread_recorded
-- What spread.record_spread runs where the source is: record_scores for source $1 alone, in the same steps and with the same locks.
--   $2 bigint[] user ids, $3 text[] submission ids, $4 bigint[] scores, $5 text[] reasons, $6 jsonb[] metadata, $7 int[] places,
--   $8 boolean[] whether there is such a user, $9 bigint[] ids for transactions, one a submission, in order of arrival;
--   by place: $10 timestamptz[] moments as given, $11 timestamptz[] moments, $12 int[] states, $13 bigint[] moments in microseconds,
--   $14 and $15 int[] the stretch of targets, $16 boolean[] whether a window is missing; by target: $17 int[] rules, $18 bigint[] windows, $19 int[] operators, $20 boolean[] whether
--   the rule is being made; $21 int round of marks, $22 text kind of outbox row, $23 bigint its id.
-- One row: see record_scores; and the places of what was recorded, and those where a window is to be made first.
WITH judged AS MATERIALIZED (
    SELECT i.ord, i.place, i.user_id, i.submission_id, i.score, i.reason, i.metadata, i.id, i.moment AS created_at,
           CASE
               WHEN o.id IS NOT NULL THEN
                   CASE WHEN o.score IS NOT DISTINCT FROM i.score AND o.reason IS NOT DISTINCT FROM i.reason
                             AND o.metadata IS NOT DISTINCT FROM i.metadata
                             AND (($10::timestamptz[])[i.place] IS NULL
                                  OR i.moment IN (o.created_at, date_trunc('milliseconds', o.created_at)))
                        THEN 'duplicate' ELSE 'conflict' END
               WHEN i.state = 1 THEN 'window_over'
               WHEN i.state = 2 THEN 'window_not_begun'
               WHEN h.hidden IS NOT FALSE AND NOT i.known THEN 'unknown'
               WHEN h.hidden THEN 'hidden'
               WHEN i.state = 3 THEN 'future'
               WHEN coalesce(h.far, false) OR abs(i.score) > 4503599627370495 THEN CASE WHEN EXISTS (
                   SELECT FROM {scores} s WHERE s.source = $1 AND s.user_id = i.user_id
                   AND abs(s.score + i.score) > 9007199254740991 AND (s.rule, s."window") IN (
                       SELECT t.rule, t."window" FROM unnest($17::int[], $18::bigint[], $19::int[]) WITH ORDINALITY AS t (rule, "window", operator, n)
                       WHERE t.operator = 0 AND t.n BETWEEN ($14::int[])[i.place] AND ($15::int[])[i.place]
                   )
               ) THEN 'range' END
           END AS verdict, h.hidden IS NOT NULL AS has_head, h.hidden_on, coalesce(h.built = $21, true) AS is_built
    FROM (
        SELECT *, ($11::timestamptz[])[place] AS moment, ($12::int[])[place] AS state
        FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[], $7::int[], $8::boolean[], $9::bigint[])
             WITH ORDINALITY AS i (user_id, submission_id, score, reason, metadata, place, known, id, ord)
        ORDER BY user_id
    ) AS i
    LEFT JOIN LATERAL (
        SELECT hidden, hidden_on, built, far FROM {heads} WHERE source = $1 AND user_id = i.user_id FOR NO KEY UPDATE
    ) AS h ON true
    LEFT JOIN {score_transactions} o ON o.source = $1 AND o.user_id = i.user_id AND o.submission_id = i.submission_id
), lacking AS MATERIALIZED (
    SELECT DISTINCT place FROM judged WHERE verdict IS NULL AND ($16::boolean[])[place]
), new_heads AS (
    INSERT INTO {heads} (source, user_id, built, far)
    SELECT $1, user_id, $21, coalesce(sum(abs(score)) > 4503599627370495, false)
    FROM judged WHERE verdict IS NULL AND NOT has_head AND NOT EXISTS (SELECT FROM lacking) GROUP BY user_id ORDER BY user_id
    ON CONFLICT (source, user_id) DO NOTHING RETURNING user_id
), numbered AS MATERIALIZED (
    SELECT id, ord, place, user_id, submission_id, score, reason, metadata, created_at, hidden_on, is_built FROM judged
    WHERE verdict IS NULL AND NOT EXISTS (SELECT FROM lacking) AND CASE WHEN has_head THEN true ELSE user_id IN (SELECT user_id FROM new_heads) END
), written AS (
    INSERT INTO {score_transactions} (source, id, user_id, submission_id, score, reason, metadata, created_at)
    SELECT $1, id, user_id, submission_id, score, reason, metadata, created_at FROM numbered
    ORDER BY user_id, submission_id COLLATE "C"
    ON CONFLICT (source, user_id, submission_id) DO NOTHING RETURNING id
), fresh AS MATERIALIZED (
    SELECT * FROM numbered WHERE (SELECT count(*) FROM numbered) = (SELECT count(*) FROM written) OR id IN (SELECT id FROM written)
), several AS MATERIALIZED (
    SELECT user_id FROM fresh GROUP BY user_id HAVING count(*) > 1
), entries AS MATERIALIZED (
    SELECT ($17::int[])[n] AS rule, ($18::bigint[])[n] AS "window", ($19::int[])[n] AS operator, user_id,
           CASE ($19::int[])[n] WHEN 1 THEN 1 ELSE score END AS score, at, id AS at_id, metadata, is_one_of_several
    FROM (
        SELECT user_id, id, score, ($13::bigint[])[place] AS at, metadata, is_built,
               user_id IN (SELECT user_id FROM several) AS is_one_of_several,
               generate_series(($14::int[])[place], ($15::int[])[place]) AS n
        FROM fresh
    ) AS f
    WHERE (score IS NOT NULL OR ($19::int[])[n] = 1) AND (is_built OR NOT ($20::boolean[])[n])
), changes AS MATERIALIZED (
    SELECT rule, "window", user_id, operator, score, at, at_id, metadata FROM entries WHERE NOT is_one_of_several
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (user_id, rule, "window") rule, "window", user_id, operator,
               CASE WHEN operator < 2 THEN sum(score) OVER of_row ELSE score END::bigint AS score, at, at_id, metadata
        FROM entries WHERE is_one_of_several
        WINDOW of_row AS (PARTITION BY user_id, rule, "window")
        ORDER BY user_id, rule, "window", CASE operator WHEN 3 THEN score WHEN 4 THEN -score END,
                 CASE WHEN operator > 2 THEN at END, CASE WHEN operator > 2 THEN at_id END, at DESC, at_id DESC
    ) AS together
), added AS (
    INSERT INTO {scores} AS s (source, rule, "window", user_id, score, at, at_id, metadata)
    SELECT $1, rule, "window", user_id, score, at, at_id, metadata FROM changes WHERE operator IN (0, 1)
    ON CONFLICT (source, user_id, rule, "window") DO UPDATE
        SET score = s.score + excluded.score, version = s.version + 1,
            at = greatest(s.at, excluded.at),
            at_id = CASE WHEN (excluded.at, excluded.at_id) > (s.at, s.at_id) THEN excluded.at_id ELSE s.at_id END,
            metadata = CASE WHEN (excluded.at, excluded.at_id) > (s.at, s.at_id) THEN excluded.metadata ELSE s.metadata END
    RETURNING rule, "window", user_id, score, version, at, at_id, metadata
), chosen AS (
    -- The last, and the best: which of the two it is, is by operator the order that decides.
    INSERT INTO {scores} AS s (source, rule, "window", user_id, score, at, at_id, metadata)
    SELECT $1, rule, "window", user_id, score, at, at_id, metadata FROM changes WHERE operator > 1
    ON CONFLICT (source, user_id, rule, "window") DO UPDATE SET (score, version, at, at_id, metadata) = (
        SELECT CASE WHEN l THEN excluded.score ELSE s.score END, s.version + l::int, CASE WHEN l THEN excluded.at ELSE s.at END,
               CASE WHEN l THEN excluded.at_id ELSE s.at_id END, CASE WHEN l THEN excluded.metadata ELSE s.metadata END
        FROM (SELECT CASE (SELECT operator FROM unnest($17::int[], $19::int[]) AS t (rule, operator) WHERE t.rule = s.rule LIMIT 1)
                  WHEN 2 THEN (excluded.at, excluded.at_id) > (s.at, s.at_id)
                  WHEN 3 THEN (excluded.score, excluded.at, excluded.at_id) < (s.score, s.at, s.at_id)
                  ELSE (-excluded.score, excluded.at, excluded.at_id) < (-s.score, s.at, s.at_id) END AS l) AS better)
    RETURNING rule, "window", user_id, score, version, at, at_id, metadata
), rows AS MATERIALIZED (
    SELECT * FROM added UNION ALL SELECT * FROM chosen
), far AS (
    UPDATE {heads} h SET far = true FROM (SELECT DISTINCT user_id FROM added WHERE abs(score) > 4503599627370495) AS a
    WHERE h.source = $1 AND h.user_id = a.user_id AND NOT h.far
), pending AS (
    INSERT INTO {outbox} (source, id, kind, user_ids)
    SELECT $1, $23, $22, array_agg(DISTINCT user_id) FROM fresh HAVING count(*) > 0
)
SELECT of_refused.*, of_numbered.*, of_barred.*, of_new.*, of_rows.*,
       (SELECT array_agg(DISTINCT place) FROM fresh) AS fresh_places, (SELECT array_agg(place) FROM lacking) AS lacking_places
FROM (
    SELECT array_agg(ord) AS ords, array_agg(verdict) AS verdicts FROM judged WHERE verdict IS NOT NULL
) AS of_refused, (
    SELECT array_agg(ord) AS new_ords, array_agg(id) AS new_ids,
           CASE WHEN (SELECT count(*) FROM fresh) < count(*) THEN ARRAY(
               SELECT ord FROM numbered WHERE id NOT IN (SELECT id FROM fresh)
           ) END AS twins
    FROM numbered
) AS of_numbered, (
    SELECT array_agg($1) AS barred_sources, array_agg(b.user_id) AS barred_users, array_agg(o.leaderboard) AS barred_on
    FROM (SELECT DISTINCT user_id, hidden_on FROM fresh WHERE hidden_on <> '{}') AS b CROSS JOIN LATERAL unnest(b.hidden_on) AS o (leaderboard)
) AS of_barred, (
    SELECT array_agg(DISTINCT r.user_id) AS new_users FROM rows r
    WHERE r.version = 1 AND NOT EXISTS (SELECT FROM {scores} s WHERE s.source = $1 AND s.user_id = r.user_id)
) AS of_new, (
    SELECT array_agg(rule) AS rules, array_agg("window") AS windows, array_agg(user_id) AS row_users, array_agg(score) AS scores,
           array_agg(version) AS row_versions, array_agg(at) AS row_at, array_agg(at_id) AS row_at_ids, array_agg(metadata) AS row_metadata
    FROM rows
) AS of_rows

-- name: spread_record
SELECT * FROM spread.record_spread($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)

-- name: spread_ended
-- Windows $2 bigint[] of leaderboards $1 int[], at the same place in both, are over, and their scores have changed.
UPDATE windows w SET version = w.version + 1
FROM (SELECT w.leaderboard, w.id FROM windows w JOIN unnest($1::int[], $2::bigint[]) AS over (leaderboard, id) USING (leaderboard, id)
      ORDER BY w.leaderboard, w.id FOR NO KEY UPDATE OF w) AS locked
WHERE w.id = locked.id AND w.leaderboard = locked.leaderboard

-- name: spread_named
-- Players $1 bigint[] who had no row of a source: the content that has its boards may not know them. Who renames one of them at the same
-- time waits, and then sees the score.
SELECT id AS user_id, username, version FROM users WHERE id = ANY ($1::bigint[]) ORDER BY id FOR SHARE

-- name: spread_log
-- What has become of submissions to source $1, as recorded_scores has it: $2 bigint[] user ids, $3 text[] submission ids, $4 bigint[]
-- scores, $5 text[] reasons, $6 jsonb[] metadata, $7 timestamptz[] moments.
SELECT CASE WHEN l.id IS NULL THEN 'gone'
            WHEN l.score IS NOT DISTINCT FROM i.score AND nullif(l.reason, '') IS NOT DISTINCT FROM i.reason
                 AND l.metadata IS NOT DISTINCT FROM i.metadata
                 AND (i.created_at IS NULL OR i.created_at IN (l.created_at, date_trunc('milliseconds', l.created_at))) THEN 'duplicate'
            ELSE 'conflict' END AS outcome, l.id, l.created_at
FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[], $7::timestamptz[])
     WITH ORDINALITY AS i (user_id, submission_id, score, reason, metadata, created_at, ord)
LEFT JOIN (SELECT * FROM spread.score_transactions WHERE source = $1 AND user_id = ANY ($2::bigint[]) AND submission_id = ANY ($3::text[])) AS l
     ON l.user_id = i.user_id AND l.submission_id = i.submission_id
ORDER BY i.ord

-- name: spread_windows
-- The windows of standings of source $1 that are shown, which hold moments $2 timestamptz[], each by its place there.
SELECT m.place, r.leaderboard, v.name, r.id AS rule, v.id AS "window"
FROM unnest($2::timestamptz[]) WITH ORDINALITY AS m (moment, place) CROSS JOIN rules r CROSS JOIN unnest(r.kinds) AS k (kind)
CROSS JOIN LATERAL window_at(r.leaderboard, k.kind, m.moment) AS v
WHERE r.source = $1 AND r.state = 'live'

-- name: spread_scores
-- Scores of $2 bigint[] users of source $1 under $3 int[] rules in $4 bigint[] windows.
SELECT user_id, rule, "window", score, at_id FROM spread.scores
WHERE source = $1 AND user_id = ANY ($2::bigint[]) AND rule = ANY ($3::int[]) AND "window" = ANY ($4::bigint[])

-- name: spread_sources_of_heads
-- Sources among $1 int[] on which one of $2 bigint[] users has a head.
SELECT DISTINCT source FROM spread.heads WHERE source = ANY ($1::int[]) AND user_id = ANY ($2::bigint[])

-- name: spread_free
-- Those of $2 bigint[] users whose head on source $1 nobody else has locked.
SELECT user_id FROM spread.heads WHERE source = $1 AND user_id = ANY ($2::bigint[]) FOR NO KEY UPDATE SKIP LOCKED

-- name: spread_heads_of
-- Those of $2 bigint[] users who have a head on source $1.
SELECT user_id FROM spread.heads WHERE source = $1 AND user_id = ANY ($2::bigint[])

-- name: spread_outbox_told
-- Those of $1 bigint[] outbox rows whose content, of the partitions $2 text[] and epochs $3 text[] (NULL: whichever is current), has them.
SELECT ARRAY(SELECT r.id FROM unnest($1::bigint[], $2::text[], $3::text[]) AS r (id, partition, epoch)
             WHERE NOT EXISTS (SELECT FROM contents c WHERE c.partition = r.partition AND c.epoch <> r.epoch))

-- name: spread_outbox_free
-- Those of $2 bigint[] outbox rows of source $1 that nobody else is just removing.
SELECT id FROM spread.outbox WHERE source = $1 AND id = ANY ($2::bigint[]) FOR UPDATE SKIP LOCKED

-- name: spread_outbox_removed
DELETE FROM spread.outbox WHERE source = $1 AND id = ANY ($2::bigint[])

-- name: spread_outbox_waiting
-- outbox_waiting of all sources that are spread.
SELECT id, kind, user_ids, source FROM spread.outbox
WHERE created_at < clock_timestamp() - make_interval(secs => $1) OR created_at > clock_timestamp()
ORDER BY id LIMIT $2

-- name: spread_outbox_state
SELECT count(*) AS waiting, greatest(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age FROM spread.outbox

-- name: spread_drift_waiting
SELECT DISTINCT u.id FROM spread.outbox o CROSS JOIN unnest(o.user_ids) AS u (id) WHERE u.id = ANY ($1::bigint[])

-- name: ranked_of_spread
SELECT s.rule, s."window", s.user_id, s.version, CASE WHEN h.hidden THEN NULL ELSE s.score END AS score,
       s.at, s.at_id, s.metadata, h.hidden_on
FROM spread.scores s JOIN spread.heads h ON h.source = s.source AND h.user_id = s.user_id
WHERE s.source = ANY ($2::int[]) AND s.user_id = ANY ($1::bigint[]) AND s.rule = ANY ($3::int[]) AND s."window" = ANY ($4::bigint[])

-- name: spread_hiding
-- What is to become of user $1 on the sources $2 int[] (NULL: all) that are spread, by bans and deletion: of each its round of marks,
-- whether they are hidden, and the leaderboards `of` it that they are not shown on.
WITH everywhere AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM bans WHERE user_id = $1 AND leaderboard = 0)
           OR EXISTS (SELECT FROM users WHERE id = $1 AND deleted_at IS NOT NULL) AS hidden
)
SELECT s.id AS source, s.round, e.hidden OR coalesce(bool_or(l.id = s.id), false) AS hidden,
       coalesce(array_agg(l.id ORDER BY l.id) FILTER (WHERE l.id <> s.id), '{}') AS hidden_on
FROM leaderboards s CROSS JOIN everywhere e
LEFT JOIN (bans b JOIN leaderboards l ON l.id = b.leaderboard AND b.user_id = $1) ON l.source = s.id
WHERE s.id = s.source AND s.id <> 1 AND ($2::int[] IS NULL OR s.id = ANY ($2))
GROUP BY s.id, s.round, e.hidden ORDER BY s.id

-- name: spread_held
-- player_held of user $1 on sources $2 int[], whose rounds of marks are $3 int[].
INSERT INTO spread.heads AS h (source, user_id, built)
SELECT source, $1::bigint, round FROM unnest($2::int[], $3::int[]) AS s (source, round) ORDER BY source
ON CONFLICT (source, user_id) DO UPDATE SET hidden = h.hidden

-- name: spread_hidden
-- User $1 is hidden ($3), or is not, on the sources $2 int[], and not shown on $4 int[] of what is `of` them.
UPDATE spread.heads SET hidden = $3, hidden_on = $4::int[] WHERE source = ANY ($2::int[]) AND user_id = $1

-- name: spread_live
-- Standings and windows of sources $1 int[] whose boards are live, or were lately: what closed long ago has no version but its board's.
SELECT array_agg(DISTINCT r.id) AS rules, array_agg(DISTINCT w.id) AS windows
FROM rules r JOIN windows w ON w.leaderboard = r.leaderboard
WHERE r.source = ANY ($1::int[]) AND r.state <> 'retired' AND w.ends > clock_timestamp() - interval '1 day'

-- name: spread_rows_moved
-- Moves the versions of rows of user $1 on sources $2 int[], under rules $3 int[] in windows $4 bigint[].
UPDATE spread.scores SET version = version + 1
WHERE source = ANY ($2::int[]) AND user_id = $1 AND rule = ANY ($3::int[]) AND "window" = ANY ($4::bigint[]) RETURNING source

-- name: spread_sources
-- Every source that is spread.
SELECT array_agg(id) FROM leaderboards WHERE id = source AND id <> 1

-- name: spread_outbox_ids
SELECT ARRAY(SELECT nextval('outbox_id_seq') FROM generate_series(1, $1::int))

-- name: spread_pending
-- Rows of the outbox of kind $1 about user $2: $3 bigint[] ids, $4 int[] sources.
INSERT INTO spread.outbox (id, kind, user_ids, source)
SELECT id, $1::text, ARRAY[$2::bigint], source FROM unnest($3::bigint[], $4::int[]) AS p (id, source)

-- name: spread_shown_moved
UPDATE catalogue SET shown = shown + 1

-- name: spread_failed
-- Standings of sources that are spread, which could not be made, and are no more for $1 interval, and not much longer.
SELECT r.id, r.source, r.leaderboard, l.slug, s.slug AS source_slug, r.failure, l.removed_at IS NOT NULL AS is_removed
FROM rules r JOIN leaderboards l ON l.id = r.leaderboard JOIN leaderboards s ON s.id = r.source
WHERE r.state = 'retired' AND r.failure IS NOT NULL AND r.source <> 1
      AND r.updated_at BETWEEN clock_timestamp() - $1::interval - interval '1 day' AND clock_timestamp() - $1::interval
ORDER BY r.id

-- name: spread_has_rows
-- Whether there are scores of source $1 under rule $2.
SELECT EXISTS (SELECT 1 FROM spread.scores WHERE source = $1 AND rule = $2)

-- name: spread_undefined
-- Windows of kinds that the standings which are shown have not had for $1 interval, of sources that are spread.
SELECT r.source, r.id AS rule, array_agg(w.id) AS windows
FROM rules r JOIN windows w ON w.leaderboard = r.leaderboard AND w.kind <> ALL (r.kinds)
WHERE r.state = 'live' AND r.source <> 1 AND r.updated_at < clock_timestamp() - $1::interval GROUP BY r.source, r.id

-- name: spread_dropped
-- One of $3 bigint[] windows in which source $1 has scores under rule $2.
SELECT "window" FROM spread.scores WHERE source = $1 AND rule = $2 AND "window" = ANY ($3::bigint[]) LIMIT 1
