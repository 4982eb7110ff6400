-- Closes a rebuild: makes the new epoch current and announces every board.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2]  leaderboard:run
-- ARGV[1]  the next epoch       ARGV[2]  the store's run    ARGV[3..] board ids to announce, and 'users'
--
-- Returns 'ok', or 'fenced' where this rebuild is no longer the one that fills the store.

if redis.call('GET', KEYS[1]) ~= 'filling:' .. ARGV[1] then return 'fenced' end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1])
for i = 3, #ARGV do
  redis.call('PUBLISH', 'leaderboard:changes:' .. ARGV[i], '{"epoch":"' .. ARGV[1] .. '","version":0}')
end
return 'ok'
