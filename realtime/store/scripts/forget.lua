-- Drops what a board holds of members whom the ledger does not know, or of whom what is held is no number.
--
-- KEYS[1]  leaderboard:epoch                  KEYS[2]  leaderboard:version:users
-- KEYS[3]  leaderboard:user_scores:{board}    KEYS[4]  leaderboard:version:{board}   KEYS[5]  leaderboard:versions:{board}
-- KEYS[6..]  leaderboard:users:{user_id}, to be deleted
-- ARGV[1]  the epoch the caller expects       ARGV[2]  board id                      ARGV[3]  number of members N
-- then N members, and N versions as the caller saw them ('' for none): where another stands by now, nothing is dropped
--
-- Returns 'ok', or 'epoch' where the content is of another epoch: then nothing was written.

local unpack = table.unpack or unpack
local channel = 'leaderboard:changes:'

local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then return 'epoch' end
local count = tonumber(ARGV[3])
local members = {unpack(ARGV, 4, 3 + count)}
local known = redis.call('HMGET', KEYS[5], unpack(members))
local scores = redis.call('ZMSCORE', KEYS[3], unpack(members))
local edge = redis.call('ZREVRANGE', KEYS[3], 99, 99, 'WITHSCORES')[2]

local doomed, shown = {}, false
for i = 1, count do
  if (known[i] or '') == ARGV[3 + count + i] then
    doomed[#doomed + 1] = members[i]
    shown = shown or (scores[i] and (not edge or tonumber(scores[i]) >= tonumber(edge)))
  end
end

local announce = {}
if shown then announce[#announce + 1] = {ARGV[2], redis.call('INCR', KEYS[4])} end
if #KEYS > 5 then announce[#announce + 1] = {'users', redis.call('INCR', KEYS[2])} end
if #doomed > 0 then
  redis.call('ZREM', KEYS[3], unpack(doomed))
  redis.call('HDEL', KEYS[5], unpack(doomed))
end
for i = 6, #KEYS do redis.call('DEL', KEYS[i]) end
for _, item in ipairs(announce) do
  redis.call('PUBLISH', channel .. item[1], string.format('{"epoch":"%s","version":%d}', epoch, item[2]))
end
return 'ok'
