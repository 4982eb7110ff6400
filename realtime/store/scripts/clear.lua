-- Drops keys of a store that is being filled.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2..]  what is to go
-- ARGV[1]  the next epoch
--
-- Returns 'ok', or 'fenced' where this rebuild is no longer the one that fills the store: then nothing was dropped.

local unpack = table.unpack or unpack

if redis.call('GET', KEYS[1]) ~= 'filling:' .. ARGV[1] then return 'fenced' end
redis.call('UNLINK', unpack(KEYS, 2))
return 'ok'
