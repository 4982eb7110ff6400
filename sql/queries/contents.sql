-- name: contents_claimed
-- A number for whoever makes the content of partition $1 anew, higher than any before.
INSERT INTO contents AS c (partition, claims) VALUES ($1, 1)
ON CONFLICT (partition) DO UPDATE SET claims = c.claims + 1 RETURNING claims

-- name: contents_named
-- The content of partition $1 and epoch $2, made under the claim $3, is current from now on, unless a later one is. A row
-- where it is.
UPDATE contents SET epoch = $2, claim = $3, used_at = clock_timestamp() WHERE partition = $1 AND claim < $3 RETURNING epoch

-- name: contents_named_now
-- Of partition $1 what content_named_now says of the published content.
SELECT c.epoch, c.used_at, coalesce(c.used_at BETWEEN clock_timestamp() - interval '4 seconds' AND clock_timestamp(), false),
       CASE WHEN c.stray_at BETWEEN clock_timestamp() - interval '10 seconds' AND clock_timestamp() THEN c.stray END
FROM (VALUES ($1::text)) AS row (partition) LEFT JOIN contents c USING (partition)

-- name: contents_strayed
-- A process reaches content of partition $1 and epoch $2, which is not the current one.
UPDATE contents SET stray = $2, stray_at = clock_timestamp() WHERE partition = $1

-- name: contents_used
-- The current content of partition $1 is in use, and it is that of epoch $2 where nobody has said yet which one it is.
INSERT INTO contents AS c (partition, epoch, used_at) VALUES ($1, $2, clock_timestamp())
ON CONFLICT (partition) DO UPDATE SET epoch = excluded.epoch, used_at = excluded.used_at WHERE coalesce(c.epoch, $2) = $2

-- name: contents_outbox_clear
-- outbox_clear for rows whose boards are in partition $3, of content of epoch $2.
DELETE FROM outbox WHERE id = ANY (ARRAY(SELECT id FROM outbox WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED))
       AND NOT EXISTS (SELECT FROM contents WHERE partition = $3 AND epoch <> $2)
