-- Says which rules the boards of content that is being filled are made by.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2..]  leaderboard:definition:{slug}
-- ARGV[1]  the next epoch       ARGV[2..]  the rules
--
-- Returns 'ok', or 'fenced' where this rebuild is no longer the one that fills the store: then nothing was written.

if redis.call('GET', KEYS[1]) ~= 'filling:' .. ARGV[1] then return 'fenced' end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i]) end
return 'ok'
