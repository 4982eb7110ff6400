-- Drops what the content holds of some boards, and of a leaderboard's definition where that is among the keys.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2..]  what is to go
-- ARGV[1]  the epoch the caller expects
--
-- Returns 'ok', or 'epoch' where the content is of another epoch: then nothing was dropped.

local unpack = table.unpack or unpack

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'epoch' end
redis.call('UNLINK', unpack(KEYS, 2))
return 'ok'
