-- A board's top with the metadata of its rows.
--
-- KEYS[1]  leaderboard:user_scores:{board}    KEYS[2]  leaderboard:metadata:{board}
-- ARGV[1]  letters: 'a', 't' as in `page`
--
-- Returns {rows with scores, their metadata}. It is called within a transaction, for whose rows are at the top is not
-- known before.

local unpack = table.unpack or unpack
local ascending = string.find(ARGV[1], 'a', 1, true)
local rows = redis.call(ascending and 'ZRANGE' or 'ZREVRANGE', KEYS[1], 0, 99, 'WITHSCORES')
local ids, from = {}, string.find(ARGV[1], 't', 1, true) and 33 or 1
for i = 1, #rows, 2 do ids[#ids + 1] = string.sub(rows[i], from) end
return {rows, #ids > 0 and redis.call('HMGET', KEYS[2], unpack(ids)) or {}}
