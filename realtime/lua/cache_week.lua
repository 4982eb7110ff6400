-- Keeps a closed week's top 100, unless a newer one is there.
--
-- KEYS[1]  leaderboard:cache_top_100:{board}
-- ARGV[1]  version of the closed week   ARGV[2]  version:users that the names are from   ARGV[3]  the JSON
--
-- Returns 1 where it was written.

local there = redis.call('GET', KEYS[1])
if there then
  local ok, old = pcall(cjson.decode, there)
  if ok and type(old) == 'table' and tonumber(old.version) and tonumber(old.users_version) then
    local version, users = tonumber(ARGV[1]), tonumber(ARGV[2])
    if old.version > version or (old.version == version and old.users_version > users) then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[3])
return 1
