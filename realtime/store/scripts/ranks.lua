-- Where users stand on a board, all of one moment.
--
-- KEYS[1]  leaderboard:user_scores:{board}
-- ARGV[1]  user ids, at most 1,000, with spaces between: one argument is packed sooner than hundreds
--
-- Returns players, then three values a user: score, number of players above it, and the least score above it; all three nil
-- where the user is not on the board, the third where nobody is above.
--
-- One key alone, and that on purpose: Dragonfly then runs the script on the thread that has it, where a call costs two
-- microseconds and not a hop. Users with one score are counted once.

local unpack = table.unpack or unpack
local whole = math.tointeger or function(number) return number end  -- Lua 5.4 tells 7.0 from 7
local board = KEYS[1]

local ids = {}
for id in string.gmatch(ARGV[1], '%d+') do
  ids[#ids + 1] = id
end
local scores = redis.call('ZMSCORE', board, unpack(ids))
local reply, none, of_score = {redis.call('ZCARD', board)}, {false, false, false}, {}

local function standing_of(score)
  -- %.17g: a double in full, whether the store hands scores to scripts as text or as numbers
  local above = string.format('(%.17g', score)
  local next = redis.call('ZRANGEBYSCORE', board, above, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  return {whole(score), redis.call('ZCOUNT', board, above, '+inf'), next and whole(tonumber(next)) or false}
end

for i = 1, #ids do
  local score, standing, at = scores[i] and tonumber(scores[i]), none, 3 * i - 1
  if score then
    standing = of_score[score] or standing_of(score)
    of_score[score] = standing
  end
  reply[at], reply[at + 1], reply[at + 2] = standing[1], standing[2], standing[3]
end
return reply
