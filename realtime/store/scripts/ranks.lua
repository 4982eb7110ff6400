-- Where users stand on a board, all of one moment.
--
-- KEYS[1]  leaderboard:user_scores:{board}
-- KEYS[2]  leaderboard:versions:{board}, with 't' alone
-- ARGV[1]  user ids, at most 1,000, with spaces between: one argument is packed sooner than hundreds
-- ARGV[2]  letters: 'a', 't', 'd' as in `page`, 'o' ranks are ordinal
--
-- Returns players, then three values a user: score, number of players above it, as the board counts ranks, and the next
-- score that is better; all three nil where the user is not on the board, the third where nobody is better.
--
-- One key alone where that will do, and that on purpose: Dragonfly then runs the script on the thread that has it, where
-- a call costs two microseconds and not a hop. Users with one score are counted once.

local unpack = table.unpack or unpack
local whole = math.tointeger or function(number) return number end  -- Lua 5.4 tells 7.0 from 7
local board, ascending = KEYS[1], string.find(ARGV[2], 'a', 1, true)
local ordinal, dense = string.find(ARGV[2], 'o', 1, true), string.find(ARGV[2], 'd', 1, true)

local members = {}
for id in string.gmatch(ARGV[1], '%d+') do
  members[#members + 1] = id
end
if KEYS[2] then
  local records = redis.call('HMGET', KEYS[2], unpack(members))
  for i = 1, #members do
    members[i] = (string.match(records[i] or '', ':(%d+)$') or '') .. members[i]
  end
end
local scores = redis.call('ZMSCORE', board, unpack(members))
local reply, none, of_score = {redis.call('ZCARD', board)}, {false, false, false}, {}

local within = {}  -- of the scores at the top: how many better ones there are
if dense then
  local top = redis.call(ascending and 'ZRANGE' or 'ZREVRANGE', board, 0, 99, 'WITHSCORES')
  local better = 0
  for i = 2, #top, 2 do
    local score = tonumber(top[i])
    if not within[score] then
      within[score] = better
      better = better + 1
    end
  end
end

local function standing_of(score)
  -- %.17g: a double in full, whether the store hands scores to scripts as text or as numbers
  local beyond = string.format('(%.17g', score)
  local next, better
  if ascending then
    next = redis.call('ZREVRANGEBYSCORE', board, beyond, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    better = redis.call('ZCOUNT', board, '-inf', beyond)
  else
    next = redis.call('ZRANGEBYSCORE', board, beyond, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    better = redis.call('ZCOUNT', board, beyond, '+inf')
  end
  return {whole(score), better, next and whole(tonumber(next)) or false}
end

for i = 1, #members do
  local score, standing, at = scores[i] and tonumber(scores[i]), none, 3 * i - 1
  if score then
    standing = of_score[score] or standing_of(score)
    of_score[score] = standing
  end
  local above = standing[2]
  if score and (ordinal or (dense and within[score])) then
    local place = redis.call(ascending and 'ZRANK' or 'ZREVRANK', board, members[i])
    if ordinal then above = place elseif place < 100 then above = within[score] end
  end
  reply[at], reply[at + 1], reply[at + 2] = standing[1], above, standing[3]
end
return reply
