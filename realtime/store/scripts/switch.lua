-- Makes the standings that were made beside a leaderboard's boards the ones that are shown.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2]  leaderboard:definition:{slug}
-- then for each of B boards, seven keys: leaderboard:version:{board}, and of user_scores, versions and metadata
--          leaderboard:...:{board}, leaderboard:...:next:{rule}:{board}
-- ARGV[1]  the epoch the caller expects     ARGV[2]  how changes are announced, as for `apply_ranked`
-- ARGV[3]  the rule that is shown from now on
-- then for each board: board id, unix time at which its keys expire (0: never)
--
-- Returns 'ok', 'same' where that rule is shown already, or 'epoch' where the content is of another epoch; in the last two
-- cases nothing was written. What was there goes first: RENAME would drop it while everybody waits.

local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then return 'epoch' end
if redis.call('GET', KEYS[2]) == ARGV[3] then return 'same' end
local how, channel = string.match(ARGV[2], '^(%u+) (.+)$')
local announce = {}
for b = 0, (#KEYS - 2) / 7 - 1 do
  local first, id, expire_at = 3 + 7 * b, ARGV[4 + 2 * b], tonumber(ARGV[5 + 2 * b])
  local version = KEYS[first]
  for pair = first + 1, first + 5, 2 do
    local shown, made = KEYS[pair], KEYS[pair + 1]
    redis.call('UNLINK', shown)
    if redis.call('EXISTS', made) == 1 then
      redis.call('RENAME', made, shown)
      if expire_at > 0 then redis.call('EXPIREAT', shown, expire_at) end
    end
  end
  announce[#announce + 1] = {id, redis.call('INCR', version)}
  if expire_at > 0 then redis.call('EXPIREAT', version, expire_at) end
end
redis.call('SET', KEYS[2], ARGV[3])
for _, item in ipairs(announce) do
  if not how then
    local message = string.format('{"epoch":"%s","version":%d}', epoch, item[2])
    redis.call('PUBLISH', 'leaderboard:changes:' .. item[1], message)
  else
    local message = string.format('{"board":"%s","epoch":"%s","version":%d}', item[1], epoch, item[2])
    redis.call(how, channel, message)
  end
end
return 'ok'
