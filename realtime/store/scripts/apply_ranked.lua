-- Applies absolute rows of boards of any order, and profiles, each guarded by its version; announces the boards whose top
-- changed. `apply` does the same for published boards alone, and is what a batch of them costs.
--
-- KEYS[1]  {tag}leaderboard:epoch
-- KEYS[2]  {tag}leaderboard:version:users
-- then for each of L leaderboards: {tag}leaderboard:definition:{slug}
-- then for each of B boards, four keys:
--          leaderboard:user_scores:{board}   leaderboard:version:{board}   leaderboard:versions:{board}
--          leaderboard:metadata:{board}
-- then for each of U users:
--          leaderboard:users:{user_id}
--
-- ARGV[1]  the epoch the caller expects        ARGV[2]  how changes are announced: '' for channels of the published
--          content, else the command and the channel, as 'PUBLISH {p07}leaderboard:changes'
-- ARGV[3]  L    ARGV[4]  B    ARGV[5]  U
-- then the L rules that the caller expects ('' for none yet)
-- then for each board: board id, unix time at which its keys expire (0: never), its traits (letters: 'a' smaller scores
--          are better, 't' of equal scores the moment decides, 'm' rows show metadata, 'n' it is being made, and silent),
--          and three lists of the same length, in one text each with spaces between: user ids, row versions, whole scores
--          ('-' takes the user off the board); with 't' a fourth: 32 digits a row, which stand in front of the user id in
--          the member ('-' where there is no score); with 'm' as many texts as rows: the metadata, '' for none
-- then, where there are users: their ids and their versions, in one text each, and U usernames
--
-- Returns {'ok', rows applied}, {'epoch', the epoch there is ('' for none)}, or {'definition', number of the leaderboard,
-- the rule there is}: in the last two cases nothing was written.
--
-- Order: as in `apply`. With 't' a member of another moment goes after the new one is in, and the version says which one
-- is in after both: a script that is stopped half-way has left nothing that telling it again does not mend. At most 1,000
-- rows a board. Every key is declared; whole scores are passed through as text, never formatted here.

local unpack = table.unpack or unpack

local epoch = redis.call('GET', KEYS[1])
if not epoch or epoch ~= ARGV[1] then
  return {'epoch', epoch or ''}
end
local filling = string.sub(epoch, 1, 8) == 'filling:'
local how, channel = string.match(ARGV[2], '^(%u+) (.+)$')
local leaderboards, boards, users = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if leaderboards > 0 then
  local rules = redis.call('MGET', unpack(KEYS, 3, 2 + leaderboards))
  for l = 1, leaderboards do
    if (rules[l] or '') ~= ARGV[5 + l] then return {'definition', l, rules[l] or ''} end
  end
end
local at = 6 + leaderboards

local function list(text)
  local values, n = {}, 0
  for value in string.gmatch(text, '%S+') do
    n = n + 1
    values[n] = value
  end
  return values
end

-- The version in a row's record, and the digits that stand in front of the user id in its member ('' for none).
local function read_record(record)
  if not record then return nil, '' end
  local version, digits = string.match(record, '^(%d+):?(%d*)$')
  return tonumber(version), digits or ''
end

local function members_of(ids, digits)
  local members = {}
  for i = 1, #ids do members[i] = digits[i] .. ids[i] end
  return members
end

-- Whether a score under a member stands within the top.
local function is_within(plan, score, member)
  if not plan.edge or score == plan.edge then
    return not plan.edge or member == plan.edge_member or (member < plan.edge_member) == plan.ascending
  end
  return (score < plan.edge) == plan.ascending
end

-- Reads ---------------------------------------------------------------------------------------------------------------

local applied = 0

local function plan_of(b)
  local first, traits = 3 + leaderboards + 4 * (b - 1), ARGV[at + 2]
  local plan = {
    scores = KEYS[first], version = KEYS[first + 1], versions = KEYS[first + 2], metadata = KEYS[first + 3],
    id = ARGV[at], expire_at = tonumber(ARGV[at + 1]), shown = false,
    ascending = string.find(traits, 'a', 1, true) ~= nil, by_time = string.find(traits, 't', 1, true) ~= nil,
    described = string.find(traits, 'm', 1, true) ~= nil, silent = string.find(traits, 'n', 1, true) ~= nil,
    add = {}, remove = {}, record = {}, describe = {}, undescribe = {}
  }
  local ids, row_versions, scores = list(ARGV[at + 3]), list(ARGV[at + 4]), list(ARGV[at + 5])
  local length, digits = #ids, nil
  at = at + 6
  if plan.by_time then
    digits = list(ARGV[at])
    at = at + 1
  end
  local described = at
  if plan.described then at = at + length end
  local edge = redis.call(plan.ascending and 'ZRANGE' or 'ZREVRANGE', plan.scores, 99, 99, 'WITHSCORES')
  plan.edge, plan.edge_member = edge[2] and tonumber(edge[2]), edge[1]
  if length == 0 then return plan end

  local records = redis.call('HMGET', plan.versions, unpack(ids))
  local known, digits_before, members_before, members = {}, {}, ids, ids
  for i = 1, length do known[i], digits_before[i] = read_record(records[i]) end
  if plan.by_time then
    members_before, members = members_of(ids, digits_before), members_of(ids, digits)
  end
  local before = redis.call('ZMSCORE', plan.scores, unpack(members_before))
  local metadata = plan.described and redis.call('HMGET', plan.metadata, unpack(ids))

  for i = 1, length do
    local stands, version = known[i], tonumber(row_versions[i])
    if not stands or version >= stands then
      local new = scores[i] ~= '-' and tonumber(scores[i]) or nil
      local old = before[i] and tonumber(before[i]) or nil
      local moved = new ~= old or (new and members[i] ~= members_before[i])
      local redescribed = false
      if metadata then
        local told = new and ARGV[described + i - 1] or ''
        redescribed = told ~= (metadata[i] or '')
        if redescribed and told ~= '' then
          plan.describe[#plan.describe + 1] = ids[i]
          plan.describe[#plan.describe + 1] = told
        elseif redescribed then
          plan.undescribe[#plan.undescribe + 1] = ids[i]
        end
      end
      if moved then
        if new then
          plan.add[#plan.add + 1] = scores[i]
          plan.add[#plan.add + 1] = members[i]
        end
        if old and (not new or members[i] ~= members_before[i]) then
          plan.remove[#plan.remove + 1] = members_before[i]
        end
      end
      if (moved or redescribed) and not plan.shown then
        plan.shown = (new and is_within(plan, new, members[i])) or (old and is_within(plan, old, members_before[i]))
      end
      if moved or not stands or version > stands then
        plan.record[#plan.record + 1] = ids[i]
        plan.record[#plan.record + 1] = (plan.by_time and new) and row_versions[i] .. ':' .. digits[i] or row_versions[i]
        applied = applied + 1
      end
    end
  end
  return plan
end

local plans = {}
for b = 1, boards do plans[b] = plan_of(b) end

local profiles, renamed, named = {}, 0, {}
local hashes = 2 + leaderboards + 4 * boards
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
    if known[1] then renamed = renamed + 1 end  -- or banned, or deleted: closed boards must look again
    named[#named + 1] = id
  end
end
if #named > 0 and not filling then
  -- Who has a new name and stands at a top is shown there otherwise from now on. So is who had none: the score of a new
  -- player may come in another call, and sooner.
  for _, plan in ipairs(plans) do
    if not plan.shown and not plan.silent then
      local members = named
      if plan.by_time then
        local digits, records = {}, redis.call('HMGET', plan.versions, unpack(named))
        for i = 1, #named do
          local _, of_row = read_record(records[i])
          digits[i] = of_row
        end
        members = members_of(named, digits)
      end
      local scores = redis.call('ZMSCORE', plan.scores, unpack(members))
      for i = 1, #named do
        if scores[i] and is_within(plan, tonumber(scores[i]), members[i]) then plan.shown = true end
      end
    end
  end
end

-- Writes --------------------------------------------------------------------------------------------------------------

local announce = {}
for _, plan in ipairs(plans) do
  if plan.shown and not filling and not plan.silent then
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
  if #plan.describe > 0 then redis.call('HSET', plan.metadata, unpack(plan.describe)) end
  if #plan.undescribe > 0 then redis.call('HDEL', plan.metadata, unpack(plan.undescribe)) end
end
for _, plan in ipairs(plans) do
  if #plan.record > 0 then redis.call('HSET', plan.versions, unpack(plan.record)) end
end
for _, plan in ipairs(plans) do
  if plan.expire_at > 0 then
    redis.call('EXPIREAT', plan.scores, plan.expire_at)
    redis.call('EXPIREAT', plan.version, plan.expire_at)
    redis.call('EXPIREAT', plan.versions, plan.expire_at)
    if plan.described then redis.call('EXPIREAT', plan.metadata, plan.expire_at) end
  end
end
local positions = {}
for _, item in ipairs(announce) do
  if not how then
    local message = string.format('{"epoch":"%s","version":%d}', epoch, item[2])
    redis.call('PUBLISH', 'leaderboard:changes:' .. item[1], message)
  elseif item[1] == 'users' then
    redis.call(how, channel, string.format('{"board":null,"epoch":"%s","version":%d}', epoch, item[2]))
  else
    positions[#positions + 1] = string.format('"%s":%d', item[1], item[2])
  end
end
if #positions > 0 then
  -- All boards in one message: every process hears it, and spends about as much on one of each board as on one of all.
  redis.call(how, channel, string.format('{"boards":{%s},"epoch":"%s"}', table.concat(positions, ','), epoch))
end
return {'ok', applied}
