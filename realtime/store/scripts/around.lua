-- A user's place on a board with the rows around it, all of one moment.
--
-- KEYS[1]  leaderboard:epoch             KEYS[2]  leaderboard:version:users
-- KEYS[3]  leaderboard:version:{board}   KEYS[4]  leaderboard:user_scores:{board}
-- KEYS[5]  leaderboard:definition:{slug} KEYS[6]  leaderboard:metadata:{board}   KEYS[7]  leaderboard:versions:{board};
--          none of the three for a published board
-- ARGV[1]  user id                       ARGV[2]  rows wanted on each side       ARGV[3]  letters, as in `page`
--
-- Returns {epoch or '', version:users, version, players, place of the first row from 0, number of players better than the
-- first row, the next score that is better than the user's or nil, rows with scores, definition or '', dense rank of the
-- first row and metadata as in `page`}; no rows where the user is not on the board.

local unpack = table.unpack or unpack
local whole = math.tointeger or function(number) return number end
local board, side, member = KEYS[4], tonumber(ARGV[2]), ARGV[1]
local ascending, by_time = string.find(ARGV[3], 'a', 1, true), string.find(ARGV[3], 't', 1, true)
local range = ascending and 'ZRANGE' or 'ZREVRANGE'

if by_time then
  member = string.match(redis.call('HGET', KEYS[7], member) or '', ':(%d+)$')
  member = (member or '') .. ARGV[1]
end

local function beyond(score)
  -- %.17g: a double in full, whether the store hands scores to scripts as text or as numbers
  return string.format('(%.17g', tonumber(score))
end

local first, better, next, rows, dense, metadata = 0, 0, false, {}, 0, {}
local place = redis.call(ascending and 'ZRANK' or 'ZREVRANK', board, member)
if place then
  first = math.max(0, place - side)
  rows = redis.call(range, board, first, place + side, 'WITHSCORES')
  local of_first, own = beyond(rows[2]), beyond(rows[2 * (place - first) + 2])
  if ascending then
    better = redis.call('ZCOUNT', board, '-inf', of_first)
    next = redis.call('ZREVRANGEBYSCORE', board, own, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  else
    better = redis.call('ZCOUNT', board, of_first, '+inf')
    next = redis.call('ZRANGEBYSCORE', board, own, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  end
  if string.find(ARGV[3], 'd', 1, true) and first < 100 then
    local before = redis.call(range, board, 0, first, 'WITHSCORES')
    for i = 2, #before, 2 do
      if i == 2 or tonumber(before[i]) ~= tonumber(before[i - 2]) then dense = dense + 1 end
    end
  end
  if string.find(ARGV[3], 'm', 1, true) then
    local ids = {}
    for i = 1, #rows, 2 do ids[#ids + 1] = string.sub(rows[i], by_time and 33 or 1) end
    metadata = redis.call('HMGET', KEYS[6], unpack(ids))
  end
end
return {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0', redis.call('GET', KEYS[3]) or '0',
  redis.call('ZCARD', board), first, better, next and whole(tonumber(next)) or false, rows,
  KEYS[5] and redis.call('GET', KEYS[5]) or '', dense, metadata
}
