-- A stretch of a board with the rank of its first row, all of one moment.
--
-- KEYS[1]  leaderboard:epoch             KEYS[2]  leaderboard:version:users
-- KEYS[3]  leaderboard:version:{board}   KEYS[4]  leaderboard:user_scores:{board}
-- ARGV[1]  first place, from 0           ARGV[2]  last place
--
-- Returns {epoch or '', version:users, version, players, number of players above the first row's score, rows with scores}.

local rows = redis.call('ZREVRANGE', KEYS[4], ARGV[1], ARGV[2], 'WITHSCORES')
local above = 0
if rows[2] then
  -- %.17g: a double in full, whether the store hands scores to scripts as text or as numbers
  above = redis.call('ZCOUNT', KEYS[4], '(' .. string.format('%.17g', tonumber(rows[2])), '+inf')
end
return {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0', redis.call('GET', KEYS[3]) or '0',
  redis.call('ZCARD', KEYS[4]), above, rows
}
