-- A stretch of a board with the rank of its first row, all of one moment.
--
-- KEYS[1]  leaderboard:epoch             KEYS[2]  leaderboard:version:users
-- KEYS[3]  leaderboard:version:{board}   KEYS[4]  leaderboard:user_scores:{board}
-- KEYS[5]  leaderboard:definition:{slug} KEYS[6]  leaderboard:metadata:{board}; neither for a published board
-- ARGV[1]  first place, from 0           ARGV[2]  last place
-- ARGV[3]  letters: 'a' smaller scores are better, 't' a member is 32 digits and a user id, 'm' rows show metadata,
--          'd' ranks are dense
--
-- Returns {epoch or '', version:users, version, players, number of players better than the first row, rows with scores,
-- definition or '', with 'd' the dense rank of the first row where that is within the top (else 0), with 'm' the rows'
-- metadata}.

local unpack = table.unpack or unpack
local ascending = string.find(ARGV[3], 'a', 1, true)
local range = ascending and 'ZRANGE' or 'ZREVRANGE'
local rows = redis.call(range, KEYS[4], ARGV[1], ARGV[2], 'WITHSCORES')
local better, dense, metadata = 0, 0, {}
if rows[2] then
  -- %.17g: a double in full, whether the store hands scores to scripts as text or as numbers
  local beyond = '(' .. string.format('%.17g', tonumber(rows[2]))
  better = redis.call('ZCOUNT', KEYS[4], ascending and '-inf' or beyond, ascending and beyond or '+inf')
  if string.find(ARGV[3], 'd', 1, true) and tonumber(ARGV[1]) < 100 then
    local before = redis.call(range, KEYS[4], 0, ARGV[1], 'WITHSCORES')
    for i = 2, #before, 2 do
      if i == 2 or tonumber(before[i]) ~= tonumber(before[i - 2]) then dense = dense + 1 end
    end
  end
  if string.find(ARGV[3], 'm', 1, true) then
    local ids, from = {}, string.find(ARGV[3], 't', 1, true) and 33 or 1
    for i = 1, #rows, 2 do ids[#ids + 1] = string.sub(rows[i], from) end
    metadata = redis.call('HMGET', KEYS[6], unpack(ids))
  end
end
return {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0', redis.call('GET', KEYS[3]) or '0',
  redis.call('ZCARD', KEYS[4]), better, rows, KEYS[5] and redis.call('GET', KEYS[5]) or '', dense, metadata
}
