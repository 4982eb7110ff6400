-- Closes a rebuild: makes the new epoch current and announces every board.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2]  leaderboard:run
-- ARGV[1]  the next epoch       ARGV[2]  the store's run
-- ARGV[3]  how changes are announced, as for `apply_ranked`     ARGV[4..] board ids to announce, and 'users'
--
-- Returns 'ok', or 'fenced' where this rebuild is no longer the one that fills the store.

if redis.call('GET', KEYS[1]) ~= 'filling:' .. ARGV[1] then return 'fenced' end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1])
local how, channel = string.match(ARGV[3], '^(%u+) (.+)$')
for i = 4, #ARGV do
  local position = '"epoch":"' .. ARGV[1] .. '","version":0}'
  if not how then
    redis.call('PUBLISH', 'leaderboard:changes:' .. ARGV[i], '{' .. position)
  else
    local board = ARGV[i] == 'users' and 'null' or '"' .. ARGV[i] .. '"'
    redis.call(how, channel, '{"board":' .. board .. ',' .. position)
  end
end
return 'ok'
