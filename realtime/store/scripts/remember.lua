-- Remembers how far the ledger has come, unless what is remembered is of a server that was promoted in this one's place.
--
-- KEYS[1]  leaderboard:ledger
-- ARGV[1]  what is to be remembered; of a ledger of
-- ARGV[2]  this cluster,
-- ARGV[3]  this timeline,
-- ARGV[4]  this term: a number that moves on with each restore and failover that was noticed
--
-- Returns 'ok', or 'older'.

local there = redis.call('MGET', KEYS[1])[1]  -- and not GET: a key of another type is nothing remembered, and no error
if there then
  local cluster, timeline, term = string.match(there, '^%w+:%d+:%d+:(%d+):(%d+):(%d+):')
  if cluster == ARGV[2] and tonumber(ARGV[3]) < tonumber(timeline) and tonumber(ARGV[4]) <= tonumber(term) then
    return 'older'
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return 'ok'
