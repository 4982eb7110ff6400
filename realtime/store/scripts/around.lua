-- A user's place on a board with the rows around it, all of one moment.
--
-- KEYS[1]  leaderboard:epoch             KEYS[2]  leaderboard:version:users
-- KEYS[3]  leaderboard:version:{board}   KEYS[4]  leaderboard:user_scores:{board}
-- ARGV[1]  user id                       ARGV[2]  rows wanted on each side
--
-- Returns {epoch or '', version:users, version, players, place of the first row from 0, number of players above the first
-- row's score, the least score above the user's or nil, rows with scores}; no rows where the user is not on the board.

local whole = math.tointeger or function(number) return number end
local board, side = KEYS[4], tonumber(ARGV[2])

local function above(score)
  -- %.17g: a double in full, whether the store hands scores to scripts as text or as numbers
  return string.format('(%.17g', tonumber(score))
end

local first, count, next, rows = 0, 0, false, {}
local place = redis.call('ZREVRANK', board, ARGV[1])
if place then
  first = math.max(0, place - side)
  rows = redis.call('ZREVRANGE', board, first, place + side, 'WITHSCORES')
  count = redis.call('ZCOUNT', board, above(rows[2]), '+inf')
  local own = rows[2 * (place - first) + 2]
  next = redis.call('ZRANGEBYSCORE', board, above(own), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
end
return {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0', redis.call('GET', KEYS[3]) or '0',
  redis.call('ZCARD', board), first, count, next and whole(tonumber(next)) or false, rows
}
