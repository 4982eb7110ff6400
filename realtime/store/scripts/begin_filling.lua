-- Opens a rebuild: from now on the store's content is known to be incomplete.
--
-- KEYS[1]  leaderboard:epoch
-- ARGV[1]  the next epoch, `<run>-<n>`; n in base 36
--
-- Returns 'ok', or 'fenced' where a later rebuild of the same run has begun or ended meanwhile.

local function number(epoch)
  local run, n = string.match(epoch, '(%x+)%-(%w+)$')
  return run, n and tonumber(n, 36)
end

local run, n = number(ARGV[1])
local there = redis.call('MGET', KEYS[1])[1]  -- and not GET: a key of another type is no epoch, and no error
if there then
  local its_run, its_n = number(there)
  if its_run == run and its_n and its_n >= n then return 'fenced' end
end
redis.call('SET', KEYS[1], 'filling:' .. ARGV[1])
return 'ok'
