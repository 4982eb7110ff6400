-- Drops what a board holds of members whom the ledger does not know, or of whom what is held cannot be ours.
--
-- KEYS[1]  leaderboard:epoch                  KEYS[2]  leaderboard:version:users
-- KEYS[3]  leaderboard:user_scores:{board}    KEYS[4]  leaderboard:version:{board}   KEYS[5]  leaderboard:versions:{board}
-- KEYS[6]  leaderboard:metadata:{board}       KEYS[7..]  leaderboard:users:{user_id}, to be deleted
-- ARGV[1]  the epoch the caller expects       ARGV[2]  board id                      ARGV[3]  number of members N
-- ARGV[4]  how changes are announced, as for `apply_ranked`      ARGV[5]  letters: 'a' smaller scores are better
-- then N members, the N fields of `versions` that belong to them, and these N fields' values as the caller saw them ('' for
-- none): where another stands by now, nothing is dropped; then N times 1 where the field goes too, else 0
--
-- Returns 'ok', or 'epoch' where the content is of another epoch: then nothing was written.

local unpack = table.unpack or unpack

local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then return 'epoch' end
local how, channel = string.match(ARGV[4], '^(%u+) (.+)$')
local count, ascending = tonumber(ARGV[3]), string.find(ARGV[5], 'a', 1, true) ~= nil
local members, fields = {unpack(ARGV, 6, 5 + count)}, {unpack(ARGV, 6 + count, 5 + 2 * count)}
local known = redis.call('HMGET', KEYS[5], unpack(fields))
local scores = redis.call('ZMSCORE', KEYS[3], unpack(members))
local edge = redis.call(ascending and 'ZRANGE' or 'ZREVRANGE', KEYS[3], 99, 99, 'WITHSCORES')
local edge_member, edge_score = edge[1], edge[2] and tonumber(edge[2])

local function is_within(score, member)
  if not edge_score then return true end
  if score == edge_score then return member == edge_member or (member < edge_member) == ascending end
  return (score < edge_score) == ascending
end

local doomed, fields_doomed, shown = {}, {}, false
for i = 1, count do
  if (known[i] or '') == ARGV[5 + 2 * count + i] then
    doomed[#doomed + 1] = members[i]
    if ARGV[5 + 3 * count + i] == '1' then fields_doomed[#fields_doomed + 1] = fields[i] end
    shown = shown or (scores[i] and is_within(tonumber(scores[i]), members[i]))
  end
end

local announce = {}
if shown then announce[#announce + 1] = {ARGV[2], redis.call('INCR', KEYS[4])} end
if #KEYS > 6 then announce[#announce + 1] = {'users', redis.call('INCR', KEYS[2])} end
if #doomed > 0 then redis.call('ZREM', KEYS[3], unpack(doomed)) end
if #fields_doomed > 0 then
  redis.call('HDEL', KEYS[5], unpack(fields_doomed))
  redis.call('HDEL', KEYS[6], unpack(fields_doomed))
end
for i = 7, #KEYS do redis.call('DEL', KEYS[i]) end
for _, item in ipairs(announce) do
  if not how then
    local message = string.format('{"epoch":"%s","version":%d}', epoch, item[2])
    redis.call('PUBLISH', 'leaderboard:changes:' .. item[1], message)
  else
    local board = item[1] == 'users' and 'null' or '"' .. item[1] .. '"'
    local message = string.format('{"board":%s,"epoch":"%s","version":%d}', board, epoch, item[2])
    redis.call(how, channel, message)
  end
end
return 'ok'
