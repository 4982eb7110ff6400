-- name: record_scores
-- Records up to 1,000 submissions to any leaderboards in one statement: transactions, totals and weeks of default, heads,
-- scores, and one outbox row a source.
--   $1 bigint[] user ids, $2 text[] submission ids (no triple of source, user and id twice), $3 bigint[] scores (NULL: it only
--   counts), $4 text[] reasons, $5 jsonb[] metadata, $6 int[] places, from 1, in these lists:
--   $7 int[] sources, $8 timestamptz[] moments (NULL: now), $9 and $10 timestamptz[] starts and ends of the window that it is to
--   be recorded in (NULL: in any);
--   $11 text kind of outbox row, $12 bigint the catalogue's revision for which all this was put together;
--   $13 bigint[] outbox rows that the store has by now, $14 text[] the partitions whose content has them, '' for default's,
--   $15 text[] that content's epoch (NULL: that which is current).
-- No row where the catalogue has another revision: nothing was recorded. Else one; what lists hold of one thing stands at the same
-- place in each, NULL for empty lists:
--   week                         Monday of the week it is now
--   lacking_sources, lacking_moments  where a window is to be made first: nothing was recorded
--   ords, verdicts               the submissions that are not recorded, by their place in the batch, from 1: duplicate, conflict,
--            window_over, window_not_begun, unknown, hidden, future, range
--   moments                      of each place, in microseconds since 1970
--   new_ords, new_ids            all others, with the ids of their transactions
--   twins                        those of them that met a concurrent twin, and are not recorded after all
--   users, totals, versions, hidden, week_users, weeks, week_scores, week_versions, closed_weeks   of default, as record_batch has it
--   barred_sources, barred_users, barred_on  leaderboards of theirs `of` the source that they are not shown on
--   new_sources, new_users, usernames, user_versions   those whose total is new, or who had no row of the source
--   rules, windows, row_users, scores, row_versions, row_at, row_at_ids, row_metadata   each changed row of `scores`, as it is now
--   over_leaderboards, over_windows, over_kinds, over_names, over_starts, over_ends  the windows among them that are over, whose
--            closed boards are other now; NULL for all time
--   outbox_ids, outbox_sources
-- Nothing is said of a submission whose player had no head and got one from a concurrent statement: it is to be recorded again.
-- Locks: heads of others in order of source and user, those that are there, then those that are missing; then transactions in
-- order, then totals and weeks of default; whose head (total) is ours has scores that nobody else changes; then users who are new
-- to a source; then closed weeks and windows in order. Every step reads the one before it, which fixes that sequence. There is no join between the steps: planned
-- for arrays of unknown length such a join becomes a nested loop over the whole batch. What a step must know of another it looks
-- up by place in a list, or in a hashed subquery.
WITH moment AS MATERIALIZED (
    SELECT now, now + interval '5 seconds' AS latest  -- submissions.CLOCK_GRACE
    FROM clock_timestamp() AS now WHERE EXISTS (SELECT FROM catalogue WHERE revision = $12)
), places AS MATERIALIZED (
    SELECT p.place, p.source, coalesce(p.moment, m.now) AS moment,
           CASE WHEN coalesce(p.moment, m.now) >= p.ends THEN 1 WHEN coalesce(p.moment, m.now) < p.starts THEN 2
                WHEN p.moment > m.latest THEN 3 ELSE 0 END AS state,
           micros(coalesce(p.moment, m.now)) AS micros, (SELECT l.round FROM leaderboards l WHERE l.id = p.source) AS round
    FROM moment m, unnest($7::int[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[])
                   WITH ORDINALITY AS p (source, moment, starts, ends, place)
), targets AS MATERIALIZED (
    -- What a submission at a place writes: one stretch of this list.
    SELECT row_number() OVER (ORDER BY p.place, r.id, w.id) AS n, p.place, p.source, p.moment, r.leaderboard, r.id AS rule,
           r.state = 'building' AS building, w.id AS "window", w.ends <= m.now OR $11 = 'import' AS ended, w.kind, w.name, w.starts, w.ends,
           CASE r.operator WHEN 'sum' THEN 0 WHEN 'count' THEN 1 WHEN 'last' THEN 2
                           ELSE CASE WHEN r.ascending THEN 3 ELSE 4 END END AS operator
    FROM moment m CROSS JOIN places p
    CROSS JOIN LATERAL (SELECT * FROM rules WHERE source = p.source AND state <> 'retired') AS r
    CROSS JOIN LATERAL unnest(r.kinds) AS k (kind)
    LEFT JOIN LATERAL (
        SELECT id, kind, name, starts, ends FROM windows WHERE leaderboard = r.leaderboard AND kind = k.kind AND starts <= p.moment
        ORDER BY starts DESC LIMIT 1
    ) AS w ON w.ends > p.moment
    WHERE w.id IS NOT NULL OR k.kind <> 'season'
), of_places AS MATERIALIZED (
    SELECT array_agg(source ORDER BY place) AS sources, array_agg(moment ORDER BY place) AS moments,
           array_agg(state ORDER BY place) AS states,
           array_agg(round ORDER BY place) AS rounds, array_agg(micros ORDER BY place) AS micros
    FROM places
), of_targets AS MATERIALIZED (
    SELECT array_agg(rule ORDER BY n) AS rules, array_agg(coalesce("window", 0) ORDER BY n) AS windows,
           array_agg(operator ORDER BY n) AS operators, array_agg(building ORDER BY n) AS buildings
    FROM targets
), stretches AS MATERIALIZED (
    SELECT array_agg(coalesce(t.first, 1) ORDER BY p.place) AS firsts, array_agg(coalesce(t.last, 0) ORDER BY p.place) AS lasts
    FROM places p LEFT JOIN (SELECT place, min(n) AS first, max(n) AS last FROM targets GROUP BY place) AS t USING (place)
), judged AS MATERIALIZED (
    SELECT i.ord, i.place, i.source, i.user_id, i.submission_id, i.score, i.reason, i.metadata, i.moment AS created_at,
           CASE
               -- First: what was recorded has the same outcome for ever, also once the player is banned or deleted.
               WHEN d.id IS NOT NULL THEN
                   CASE WHEN d.score_added = i.score AND nullif(d.reason, '') IS NOT DISTINCT FROM i.reason
                             AND d.metadata IS NOT DISTINCT FROM i.metadata
                             AND (($8::timestamptz[])[i.place] IS NULL
                                  OR i.moment IN (d.created_at, date_trunc('milliseconds', d.created_at)))
                        THEN 'duplicate' ELSE 'conflict' END
               WHEN o.id IS NOT NULL THEN
                   CASE WHEN o.score IS NOT DISTINCT FROM i.score AND o.reason IS NOT DISTINCT FROM i.reason
                             AND o.metadata IS NOT DISTINCT FROM i.metadata
                             AND (($8::timestamptz[])[i.place] IS NULL
                                  OR i.moment IN (o.created_at, date_trunc('milliseconds', o.created_at)))
                        THEN 'duplicate' ELSE 'conflict' END
               WHEN i.state = 1 THEN 'window_over'
               WHEN i.state = 2 THEN 'window_not_begun'
               WHEN coalesce(t.hidden, i.head_hidden) IS NOT FALSE AND (u.id IS NULL OR u.deleted_at IS NOT NULL) THEN 'unknown'
               WHEN coalesce(t.hidden, i.head_hidden) THEN 'hidden'
               WHEN i.state = 3 THEN 'future'
               WHEN i.source = 1 THEN
                   CASE WHEN abs(coalesce(t.total_score, 0) + i.score) > 9007199254740992 THEN 'range' END
               WHEN coalesce(i.far, false) OR abs(i.score) > 4503599627370495 THEN CASE WHEN EXISTS (
                   SELECT FROM scores s WHERE s.source = i.source AND s.user_id = i.user_id
                   AND abs(s.score + i.score) > 9007199254740991 AND (s.rule, s."window") IN (
                       SELECT rule, "window" FROM targets WHERE place = i.place AND operator = 0
                   )
               ) THEN 'range' END
           END AS verdict, i.head_hidden IS NOT NULL AS has_head, i.hidden_on,
           i.round, coalesce(i.built = i.round, true) AS is_built
    FROM (
        -- Planned by itself (OFFSET 0): a join with anything below might come first, in another order, and two batches that
        -- lock heads in two orders end each other.
        SELECT b.*, h.hidden AS head_hidden, h.hidden_on, h.built, h.far FROM (
            SELECT *, (SELECT sources FROM of_places)[place] AS source, (SELECT moments FROM of_places)[place] AS moment,
                   (SELECT states FROM of_places)[place] AS state, (SELECT rounds FROM of_places)[place] AS round
            FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::jsonb[], $6::int[])
                 WITH ORDINALITY AS i (user_id, submission_id, score, reason, metadata, place, ord)
            WHERE EXISTS (SELECT FROM moment)
            ORDER BY source, user_id
        ) AS b
        LEFT JOIN LATERAL (
            SELECT hidden, hidden_on, built, far FROM heads
            WHERE source = CASE WHEN b.source <> 1 THEN b.source END AND user_id = b.user_id FOR NO KEY UPDATE
        ) AS h ON true
        OFFSET 0
    ) AS i
    LEFT JOIN user_score_transactions d
           ON d.user_id = CASE WHEN i.source = 1 THEN i.user_id END AND d.submission_id = i.submission_id
    LEFT JOIN score_transactions o
           ON o.source = CASE WHEN i.source <> 1 THEN i.source END AND o.user_id = i.user_id AND o.submission_id = i.submission_id
    LEFT JOIN user_total_scores t ON t.user_id = CASE WHEN i.source = 1 THEN i.user_id END
    LEFT JOIN users u ON u.id = CASE WHEN coalesce(t.hidden, i.head_hidden) IS NOT FALSE THEN i.user_id END
), lacking AS MATERIALIZED (
    -- Where a window is to be made first: not for what is refused in any case.
    SELECT DISTINCT source, moment FROM targets
    WHERE "window" IS NULL AND place IN (SELECT place FROM judged WHERE verdict IS NULL)
), new_heads AS (
    INSERT INTO heads (source, user_id, built, far)
    SELECT source, user_id, min(round), coalesce(sum(abs(score)) > 4503599627370495, false)
    FROM judged
    WHERE verdict IS NULL AND NOT has_head AND source <> 1 AND NOT EXISTS (SELECT FROM lacking)
    GROUP BY source, user_id ORDER BY source, user_id
    ON CONFLICT (source, user_id) DO NOTHING RETURNING source, user_id
), numbered AS MATERIALIZED (
    SELECT nextval(CASE WHEN source = 1 THEN 'user_score_transactions_id_seq'::regclass ELSE 'score_transactions_id_seq' END) AS id, j.*
    FROM (SELECT ord, place, source, user_id, submission_id, score, reason, metadata, created_at, hidden_on, is_built FROM judged
          WHERE verdict IS NULL AND NOT EXISTS (SELECT FROM lacking)
                AND CASE WHEN has_head OR source = 1 THEN true ELSE (source, user_id) IN (SELECT source, user_id FROM new_heads) END
          ORDER BY ord) AS j
), fresh_of_default AS (
    INSERT INTO user_score_transactions (id, user_id, submission_id, score_added, reason, metadata, created_at)
    SELECT id, user_id, submission_id, score, reason, metadata, created_at FROM numbered WHERE source = 1
    ORDER BY user_id, submission_id COLLATE "C"
    ON CONFLICT (user_id, submission_id) DO NOTHING RETURNING id
), fresh_of_others AS (
    INSERT INTO score_transactions (source, id, user_id, submission_id, score, reason, metadata, created_at)
    SELECT source, id, user_id, submission_id, score, reason, metadata, created_at FROM numbered
    WHERE source <> 1 AND (SELECT count(*) FROM fresh_of_default) >= 0
    ORDER BY source, user_id, submission_id COLLATE "C"
    ON CONFLICT (source, user_id, submission_id) DO NOTHING RETURNING id
), fresh AS MATERIALIZED (
    SELECT * FROM numbered
    WHERE (SELECT count(*) FROM numbered) = (SELECT count(*) FROM fresh_of_default) + (SELECT count(*) FROM fresh_of_others)
          OR CASE WHEN source = 1 THEN id IN (SELECT id FROM fresh_of_default) ELSE id IN (SELECT id FROM fresh_of_others) END
), totals AS (
    INSERT INTO user_total_scores AS t (user_id, total_score, updated_at, built)
    SELECT user_id, sum(score)::bigint, (SELECT now FROM moment), (SELECT round FROM leaderboards WHERE id = 1)
    FROM fresh WHERE source = 1 GROUP BY user_id ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE
        SET total_score = coalesce(t.total_score, 0) + excluded.total_score,
            version = t.version + 1,
            updated_at = excluded.updated_at
    RETURNING user_id, total_score, version, hidden, hidden_on, built, (xmax = 0) AS is_new
), weeks AS (
    INSERT INTO user_weekly_scores AS w (week, user_id, score)
    SELECT date_trunc('week', created_at AT TIME ZONE 'UTC')::date, user_id, sum(score)::bigint
    FROM fresh WHERE source = 1 AND (SELECT count(*) FROM totals) > 0 GROUP BY 1, 2 ORDER BY 2, 1
    ON CONFLICT (week, user_id) DO UPDATE SET score = w.score + excluded.score, version = w.version + 1
    RETURNING week, user_id, score, version
), several AS MATERIALIZED (
    -- Who has handed in more than one: few of many.
    SELECT source, user_id FROM fresh WHERE (SELECT count(*) FROM weeks) >= 0 GROUP BY source, user_id HAVING count(*) > 1
), entries AS MATERIALIZED (
    -- Rules that are being made get what is new of the players who have their rows already; of the others the log has it.
    SELECT source, (SELECT rules FROM of_targets)[n] AS rule, (SELECT windows FROM of_targets)[n] AS "window",
           (SELECT operators FROM of_targets)[n] AS operator, user_id,
           CASE (SELECT operators FROM of_targets)[n] WHEN 1 THEN 1 ELSE score END AS score, at, id AS at_id, metadata, is_one_of_several
    FROM (
        SELECT source, user_id, id, score, (SELECT micros FROM of_places)[place] AS at, metadata, is_built,
               (source, user_id) IN (SELECT source, user_id FROM several) AS is_one_of_several,
               generate_series((SELECT firsts FROM stretches)[place], (SELECT lasts FROM stretches)[place]) AS n
        FROM fresh
    ) AS f
    WHERE (score IS NOT NULL OR (SELECT operators FROM of_targets)[n] = 1)
          AND CASE WHEN NOT (SELECT buildings FROM of_targets)[n] THEN true WHEN source <> 1 THEN is_built
                   ELSE user_id IN (SELECT user_id FROM totals WHERE built = (SELECT round FROM leaderboards WHERE id = 1)) END
), changes AS MATERIALIZED (
    -- One for each row: the sum of what is new, and of what is new the submission that counts.
    SELECT source, rule, "window", user_id, operator, score, at, at_id, metadata FROM entries WHERE NOT is_one_of_several
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (user_id, source, rule, "window") source, rule, "window", user_id, operator,
               CASE WHEN operator < 2 THEN sum(score) OVER of_row ELSE score END::bigint AS score, at, at_id, metadata
        FROM entries WHERE is_one_of_several
        WINDOW of_row AS (PARTITION BY user_id, source, rule, "window")
        ORDER BY user_id, source, rule, "window", CASE operator WHEN 3 THEN score WHEN 4 THEN -score END,
                 CASE WHEN operator > 2 THEN at END, CASE WHEN operator > 2 THEN at_id END, at DESC, at_id DESC
    ) AS together
), added AS (
    INSERT INTO scores AS s (source, rule, "window", user_id, score, at, at_id, metadata)
    SELECT source, rule, "window", user_id, score, at, at_id, metadata FROM changes WHERE operator IN (0, 1)
    ON CONFLICT (source, user_id, rule, "window") DO UPDATE
        SET score = s.score + excluded.score, version = s.version + 1,
            at = greatest(s.at, excluded.at),
            at_id = CASE WHEN (excluded.at, excluded.at_id) > (s.at, s.at_id) THEN excluded.at_id ELSE s.at_id END,
            metadata = CASE WHEN (excluded.at, excluded.at_id) > (s.at, s.at_id) THEN excluded.metadata ELSE s.metadata END
    RETURNING source, rule, "window", user_id, score, version, at, at_id, metadata
), replaced AS (
    INSERT INTO scores AS s (source, rule, "window", user_id, score, at, at_id, metadata)
    SELECT source, rule, "window", user_id, score, at, at_id, metadata FROM changes WHERE operator = 2
    ON CONFLICT (source, user_id, rule, "window") DO UPDATE SET (score, version, at, at_id, metadata) = (
        SELECT CASE WHEN l THEN excluded.score ELSE s.score END, s.version + l::int, CASE WHEN l THEN excluded.at ELSE s.at END,
               CASE WHEN l THEN excluded.at_id ELSE s.at_id END, CASE WHEN l THEN excluded.metadata ELSE s.metadata END
        FROM (SELECT (excluded.at, excluded.at_id) > (s.at, s.at_id) AS l) AS later)
    RETURNING source, rule, "window", user_id, score, version, at, at_id, metadata
), lowered AS (
    INSERT INTO scores AS s (source, rule, "window", user_id, score, at, at_id, metadata)
    SELECT source, rule, "window", user_id, score, at, at_id, metadata FROM changes WHERE operator = 3
    ON CONFLICT (source, user_id, rule, "window") DO UPDATE SET (score, version, at, at_id, metadata) = (
        SELECT CASE WHEN l THEN excluded.score ELSE s.score END, s.version + l::int, CASE WHEN l THEN excluded.at ELSE s.at END,
               CASE WHEN l THEN excluded.at_id ELSE s.at_id END, CASE WHEN l THEN excluded.metadata ELSE s.metadata END
        FROM (SELECT (excluded.score, excluded.at, excluded.at_id) < (s.score, s.at, s.at_id) AS l) AS better)
    RETURNING source, rule, "window", user_id, score, version, at, at_id, metadata
), raised AS (
    INSERT INTO scores AS s (source, rule, "window", user_id, score, at, at_id, metadata)
    SELECT source, rule, "window", user_id, score, at, at_id, metadata FROM changes WHERE operator = 4
    ON CONFLICT (source, user_id, rule, "window") DO UPDATE SET (score, version, at, at_id, metadata) = (
        SELECT CASE WHEN l THEN excluded.score ELSE s.score END, s.version + l::int, CASE WHEN l THEN excluded.at ELSE s.at END,
               CASE WHEN l THEN excluded.at_id ELSE s.at_id END, CASE WHEN l THEN excluded.metadata ELSE s.metadata END
        FROM (SELECT (-excluded.score, excluded.at, excluded.at_id) < (-s.score, s.at, s.at_id) AS l) AS better)
    RETURNING source, rule, "window", user_id, score, version, at, at_id, metadata
), rows AS MATERIALIZED (
    SELECT * FROM added UNION ALL SELECT * FROM replaced UNION ALL SELECT * FROM lowered UNION ALL SELECT * FROM raised
), named AS MATERIALIZED (
    -- Players who had no row of the source: the content that has its boards may not know them. Who renames one of them at the
    -- same time waits, and then sees this score.
    SELECT n.source, u.id, u.username, u.version FROM (
        SELECT DISTINCT r.source, r.user_id FROM rows r
        WHERE r.version = 1 AND r.source <> 1 AND NOT EXISTS (SELECT FROM scores s WHERE s.source = r.source AND s.user_id = r.user_id)
    ) AS n CROSS JOIN LATERAL (SELECT id, username, version FROM users WHERE id = n.user_id FOR SHARE) AS u
), far AS (
    UPDATE heads h SET far = true FROM (SELECT DISTINCT source, user_id FROM added WHERE abs(score) > 4503599627370495 AND source <> 1) AS a
    WHERE h.source = a.source AND h.user_id = a.user_id AND NOT h.far
), closed AS (
    UPDATE closed_weeks c SET changes = c.changes + 1,
           quiet_until = CASE $11 WHEN 'import' THEN (SELECT now FROM moment) + interval '2 minutes' END
    FROM (SELECT week FROM closed_weeks WHERE week = ANY (ARRAY(SELECT DISTINCT week FROM weeks))
          AND changes IS NOT NULL AND (SELECT count(*) FROM named) >= 0 ORDER BY week FOR UPDATE) AS locked
    WHERE c.week = locked.week
    RETURNING c.week
), over AS MATERIALIZED (
    SELECT DISTINCT leaderboard, "window", kind, name, nullif(starts, '-infinity') AS starts, nullif(ends, 'infinity') AS ends FROM targets
    WHERE ended AND place IN (SELECT place FROM fresh) AND (SELECT count(*) FROM rows) + (SELECT count(*) FROM closed) >= 0
), ended AS (
    UPDATE windows w SET version = w.version + 1
    FROM (SELECT id FROM windows WHERE id = ANY (ARRAY(SELECT "window" FROM over)) AND leaderboard = ANY (ARRAY(SELECT leaderboard FROM over))
          ORDER BY leaderboard, id FOR NO KEY UPDATE) AS locked
    WHERE w.id = locked.id AND w.leaderboard = ANY (ARRAY(SELECT leaderboard FROM over))
), pending AS (
    INSERT INTO outbox (kind, user_ids, source)
    SELECT $11, array_agg(DISTINCT user_id), source FROM fresh GROUP BY source RETURNING id, source
), done AS (
    -- By a list and not by a join, which for many sources may lock all rows once for each of them.
    DELETE FROM outbox WHERE id = ANY (ARRAY(
        SELECT id FROM outbox WHERE id = ANY (ARRAY(
            SELECT r.id FROM unnest($13::bigint[], $14::text[], $15::text[]) AS r (id, partition, epoch)
            WHERE NOT EXISTS (SELECT FROM generation g WHERE r.partition = '' AND g.epoch <> r.epoch)
                  AND NOT EXISTS (SELECT FROM contents c WHERE c.partition = r.partition AND c.epoch <> r.epoch)
        )) FOR UPDATE SKIP LOCKED))
)
SELECT date_trunc('week', moment.now AT TIME ZONE 'UTC')::date AS week, (SELECT micros FROM of_places) AS moments, of_lacking.*, of_refused.*, of_numbered.*, of_totals.*, of_weeks.*,
       (SELECT array_agg(week) FROM closed) AS closed_weeks, of_barred.*, of_new.*, of_rows.*,
       of_over.*, of_outbox.*
FROM moment, (
    SELECT array_agg(source) AS lacking_sources, array_agg(moment) AS lacking_moments
    FROM lacking
) AS of_lacking, (
    SELECT array_agg(ord) AS ords, array_agg(verdict) AS verdicts FROM judged WHERE verdict IS NOT NULL
) AS of_refused, (
    SELECT array_agg(ord) AS new_ords, array_agg(id) AS new_ids,
           CASE WHEN (SELECT count(*) FROM fresh) < count(*) THEN ARRAY(
               SELECT ord FROM numbered WHERE (source, id) NOT IN (SELECT source, id FROM fresh)
           ) END AS twins
    FROM numbered
) AS of_numbered, (
    SELECT array_agg(user_id) AS users, array_agg(total_score) AS totals, array_agg(version) AS versions,
           array_agg(hidden) AS hidden
    FROM totals
) AS of_totals, (
    SELECT array_agg(user_id) AS week_users, array_agg(week) AS weeks, array_agg(score) AS week_scores,
           array_agg(version) AS week_versions
    FROM weeks
) AS of_weeks, (
    SELECT array_agg(b.source) AS barred_sources, array_agg(b.user_id) AS barred_users, array_agg(o.leaderboard) AS barred_on
    FROM (
        SELECT source, user_id, hidden_on FROM fresh WHERE hidden_on <> '{}' UNION
        SELECT 1, user_id, hidden_on FROM totals WHERE hidden_on <> '{}'
    ) AS b CROSS JOIN LATERAL unnest(b.hidden_on) AS o (leaderboard)
) AS of_barred, (
    SELECT array_agg(source) AS new_sources, array_agg(id) AS new_users, array_agg(username) AS usernames,
           array_agg(version) AS user_versions
    FROM (
        SELECT * FROM named UNION ALL
        SELECT 1, u.id, u.username, u.version FROM totals t JOIN users u ON u.id = t.user_id WHERE t.is_new
    ) AS n
) AS of_new, (
    SELECT array_agg(rule) AS rules, array_agg("window") AS windows, array_agg(user_id) AS row_users, array_agg(score) AS scores,
           array_agg(version) AS row_versions, array_agg(at) AS row_at, array_agg(at_id) AS row_at_ids, array_agg(metadata) AS row_metadata
    FROM rows
) AS of_rows, (
    SELECT array_agg(leaderboard) AS over_leaderboards, array_agg("window") AS over_windows, array_agg(kind) AS over_kinds,
           array_agg(name) AS over_names, array_agg(starts) AS over_starts, array_agg(ends) AS over_ends
    FROM over
) AS of_over, (
    SELECT array_agg(id) AS outbox_ids, array_agg(source) AS outbox_sources FROM pending
) AS of_outbox;

-- name: recorded_scores
-- What has become of submissions that are recorded, or that met a concurrent twin: $1 bigint[] user ids, $2 text[] submission ids,
-- $3 bigint[] scores, $4 text[] reasons, $5 jsonb[] metadata, $6 timestamptz[] moments, $7 int[] sources. The twin has committed
-- (or is gone) when this is asked. outcome: duplicate, conflict, or gone (to be recorded again). With it the transaction's id, of
-- default the total and the week's score, and all scores of the player that it counts for, where standings are shown: by
-- leaderboard and window's name, with the transaction that each is by.
SELECT CASE WHEN l.id IS NULL THEN 'gone'
            WHEN l.score IS NOT DISTINCT FROM i.score AND nullif(l.reason, '') IS NOT DISTINCT FROM i.reason
                 AND l.metadata IS NOT DISTINCT FROM i.metadata
                 AND (i.created_at IS NULL OR i.created_at IN (l.created_at, date_trunc('milliseconds', l.created_at))) THEN 'duplicate'
            ELSE 'conflict' END AS outcome,
       l.id, t.total_score, w.score AS week_score, of.leaderboards, of.names, of.scores, of.at_ids
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::jsonb[], $6::timestamptz[], $7::int[])
     WITH ORDINALITY AS i (user_id, submission_id, score, reason, metadata, created_at, source, ord)
LEFT JOIN LATERAL (
    SELECT id, score_added::bigint AS score, reason, metadata, created_at FROM user_score_transactions
    WHERE user_id = CASE WHEN i.source = 1 THEN i.user_id END AND submission_id = i.submission_id
    UNION ALL
    SELECT id, score, reason, metadata, created_at FROM score_transactions
    WHERE source = CASE WHEN i.source <> 1 THEN i.source END AND user_id = i.user_id AND submission_id = i.submission_id
) AS l ON true
LEFT JOIN user_total_scores t ON t.user_id = CASE WHEN i.source = 1 THEN i.user_id END
LEFT JOIN user_weekly_scores w
       ON w.user_id = CASE WHEN i.source = 1 THEN i.user_id END AND w.week = date_trunc('week', l.created_at AT TIME ZONE 'UTC')::date
LEFT JOIN LATERAL (
    SELECT array_agg(r.leaderboard) AS leaderboards, array_agg(v.name) AS names, array_agg(s.score) AS scores,
           array_agg(s.at_id) AS at_ids
    FROM rules r CROSS JOIN unnest(r.kinds) AS k (kind)
    CROSS JOIN LATERAL window_at(r.leaderboard, k.kind, l.created_at) AS v
    CROSS JOIN LATERAL (
        SELECT score, at_id FROM scores WHERE source = i.source AND user_id = i.user_id AND rule = r.id AND "window" = v.id OFFSET 0
    ) AS s
    WHERE r.source = i.source AND r.state = 'live'
) AS of ON true
ORDER BY i.ord

-- name: windows_ensured
-- Makes the windows that submissions to $1 int[] sources at $2 timestamptz[] moments count in.
SELECT ensure_windows($1::int[], $2::timestamptz[])

-- name: outbox_told
-- Removes the rows $1 bigint[] whose content, of the partitions $2 text[] and epochs $3 text[] (NULL: whichever is current), has
-- them, but for those that somebody else is just removing.
DELETE FROM outbox WHERE id = ANY (ARRAY(
    SELECT id FROM outbox WHERE id = ANY (ARRAY(
        SELECT r.id FROM unnest($1::bigint[], $2::text[], $3::text[]) AS r (id, partition, epoch)
        WHERE NOT EXISTS (SELECT FROM generation g WHERE r.partition = '' AND g.epoch <> r.epoch)
              AND NOT EXISTS (SELECT FROM contents c WHERE c.partition = r.partition AND c.epoch <> r.epoch)
    )) FOR UPDATE SKIP LOCKED))
