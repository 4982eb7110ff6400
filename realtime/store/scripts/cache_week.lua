-- Keeps a closed board's top 100, unless a newer one is there, or names have moved since it was read.
--
-- KEYS[1]  leaderboard:cache_top_100:{board}   KEYS[2]  leaderboard:version:users   KEYS[3]  leaderboard:epoch
-- ARGV[1]  version of the closed board          ARGV[2]  version:users and           ARGV[3]  epoch that the names are from
-- ARGV[4]  the JSON             ARGV[5]  seconds for which it is kept (0: for good)
--
-- Returns 1 where it was written. A counter that stands elsewhere than it was read makes the JSON useless, or, where the
-- content was made anew meanwhile, wrong: it would come to pass for good when the counter gets there again.

local known = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
if tonumber(known[2] or 0) ~= tonumber(ARGV[2]) or (known[3] or '') ~= ARGV[3] then return 0 end
local there = known[1]
if there then
  local ok, old = pcall(cjson.decode, there)
  local version = ok and type(old) == 'table' and tonumber(old.version)
  if version and version > tonumber(ARGV[1]) and version < 2^53 then return 0 end  -- beyond that it is none of ours
end
redis.call('SET', KEYS[1], ARGV[4])
if tonumber(ARGV[5]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[5]) end
return 1
