-- Applies absolute rows, each guarded by the version of its own row and board, and announces what changed.
--
-- KEYS[1]  leaderboard:epoch
-- KEYS[2]  leaderboard:version:users
-- then for each of B boards, three keys:
--          leaderboard:user_scores:{board}   leaderboard:version:{board}   leaderboard:versions:{board}
-- then for each of U users:
--          leaderboard:users:{user_id}
--
-- ARGV[1]  the epoch the caller expects
-- ARGV[2]  B    ARGV[3]  U
-- then for each board: board id, unix time at which its keys expire (0: never), and three lists of the same length, in one
--          text each with spaces between: user ids, row versions, whole scores ('-' takes the user off the board). One
--          argument a value would cost the caller more than all the rest of a batch.
-- then, where there are users: their ids and their versions, in one text each, and U usernames
--
-- Returns {'ok', rows applied} or {'epoch', the epoch there is ('' for none)}: then nothing was written.
--
-- Order: all reads, INCR, ZADD and ZREM, versions, EXPIREAT, PUBLISH. A script that is stopped half-way for memory has
-- then bumped a version too many, never recorded one for a score it did not write. At most 1,000 rows a board (unpack
-- ends at about 8,000 values). Every key is declared; whole scores are passed through as text, never formatted here.

local unpack = table.unpack or unpack
local channel = 'leaderboard:changes:'

local epoch = redis.call('GET', KEYS[1])
if not epoch or epoch ~= ARGV[1] then
  return {'epoch', epoch or ''}
end
local filling = string.sub(epoch, 1, 8) == 'filling:'
local boards, users = tonumber(ARGV[2]), tonumber(ARGV[3])
local at = 4

local function list(text)
  local values, n = {}, 0
  for value in string.gmatch(text, '%S+') do
    n = n + 1
    values[n] = value
  end
  return values
end

-- Reads ---------------------------------------------------------------------------------------------------------------

local plans, applied = {}, 0
for b = 1, boards do
  local plan = {
    scores = KEYS[3 * b], version = KEYS[3 * b + 1], versions = KEYS[3 * b + 2],
    id = ARGV[at], expire_at = tonumber(ARGV[at + 1]), shown = false,
    add = {}, remove = {}, record = {}
  }
  local ids, row_versions, scores = list(ARGV[at + 2]), list(ARGV[at + 3]), list(ARGV[at + 4])
  local length = #ids
  at = at + 5
  local edge = redis.call('ZREVRANGE', plan.scores, 99, 99, 'WITHSCORES')[2]
  plan.edge = edge and tonumber(edge)
  if length > 0 then
    local known = redis.call('HMGET', plan.versions, unpack(ids))
    local before = redis.call('ZMSCORE', plan.scores, unpack(ids))
    for i = 1, length do
      local stands = known[i] and tonumber(known[i])  -- what is no number counts as nothing
      if not stands or tonumber(row_versions[i]) >= stands then
        local new = scores[i] ~= '-' and tonumber(scores[i]) or nil
        local old = before[i] and tonumber(before[i]) or nil
        if new ~= old then
          if new then
            plan.add[#plan.add + 1] = scores[i]
            plan.add[#plan.add + 1] = ids[i]
          else
            plan.remove[#plan.remove + 1] = ids[i]
          end
          if not plan.edge or (new and new >= plan.edge) or (old and old >= plan.edge) then
            plan.shown = true
          end
        end
        if new ~= old or not stands or tonumber(row_versions[i]) > stands then
          plan.record[#plan.record + 1] = ids[i]
          plan.record[#plan.record + 1] = row_versions[i]
          applied = applied + 1
        end
      end
    end
  end
  plans[b] = plan
end

local profiles, renamed, named = {}, 0, {}
local hashes = 2 + 3 * boards
local user_ids, user_versions, some_known = {}, {}, false
if users > 0 then
  user_ids, user_versions = list(ARGV[at]), list(ARGV[at + 1])
  at = at + 1
  -- One call for all: where a store is filled, nobody is known, and to ask for each costs as much as to write it.
  some_known = redis.call('EXISTS', unpack(KEYS, hashes + 1, hashes + users)) > 0
end
for u = 1, users do
  local key, id, version, username = KEYS[hashes + u], user_ids[u], user_versions[u], ARGV[at + u]
  local known = some_known and redis.call('HMGET', key, 'version', 'username') or {}
  local stands = known[1] and tonumber(known[1])
  if not stands or tonumber(version) > stands or (tonumber(version) == stands and username ~= known[2]) then
    profiles[#profiles + 1] = {key, id, version, username}
    if known[1] then renamed = renamed + 1 end  -- or banned, or deleted: closed weeks must look again
    named[#named + 1] = id
  end
end
if #named > 0 and not filling then
  -- Who has a new name and stands at a top is shown there otherwise from now on. So is who had none: the score of a new
  -- player may come in another call, and sooner.
  for _, plan in ipairs(plans) do
    local scores = redis.call('ZMSCORE', plan.scores, unpack(named))
    for i = 1, #named do
      if scores[i] and (not plan.edge or tonumber(scores[i]) >= plan.edge) then plan.shown = true end
    end
  end
end

-- Writes --------------------------------------------------------------------------------------------------------------

local announce = {}
for _, plan in ipairs(plans) do
  if plan.shown and not filling then
    announce[#announce + 1] = {plan.id, redis.call('INCR', plan.version)}
  end
end
if renamed > 0 then
  announce[#announce + 1] = {'users', redis.call('INCR', KEYS[2])}
end
for _, profile in ipairs(profiles) do
  redis.call('HSET', profile[1], 'user_id', profile[2], 'username', profile[4], 'version', profile[3])
end
for _, plan in ipairs(plans) do
  if #plan.add > 0 then redis.call('ZADD', plan.scores, unpack(plan.add)) end
  if #plan.remove > 0 then redis.call('ZREM', plan.scores, unpack(plan.remove)) end
end
for _, plan in ipairs(plans) do
  if #plan.record > 0 then redis.call('HSET', plan.versions, unpack(plan.record)) end
end
for _, plan in ipairs(plans) do
  if plan.expire_at > 0 then
    redis.call('EXPIREAT', plan.scores, plan.expire_at)
    redis.call('EXPIREAT', plan.version, plan.expire_at)
    redis.call('EXPIREAT', plan.versions, plan.expire_at)
  end
end
for _, item in ipairs(announce) do
  redis.call('PUBLISH', channel .. item[1], string.format('{"epoch":"%s","version":%d}', epoch, item[2]))
end
return {'ok', applied}
