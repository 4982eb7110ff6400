-- What a board holds of members, all of one moment. Of a board whose members say when their score was reached.
--
-- KEYS[1]  leaderboard:epoch    KEYS[2]  leaderboard:versions:{board}    KEYS[3]  leaderboard:user_scores:{board}
-- KEYS[4]  leaderboard:metadata:{board}
-- ARGV[1]  'users' or 'members'  ARGV[2..]  user ids, or members: 32 digits and the user id, or whatever is found there
--
-- Returns {epoch or '', records, scores, metadata}: the record of each user in `versions`; the score under the member that
-- the record names, or under the member that was asked for; and the user's metadata.

local unpack = table.unpack or unpack

local ids, members = {}, {}
for i = 2, #ARGV do
  ids[i - 1] = #ARGV[i] > 32 and ARGV[1] == 'members' and string.sub(ARGV[i], 33) or ARGV[i]
  members[i - 1] = ARGV[i]
end
local records = redis.call('HMGET', KEYS[2], unpack(ids))
if ARGV[1] == 'users' then
  for i = 1, #ids do members[i] = (string.match(records[i] or '', ':(%d+)$') or '') .. ids[i] end
end
local scores = redis.call('ZMSCORE', KEYS[3], unpack(members))
for i = 1, #ids do
  -- as text: a number of a script's reply loses what is behind its point
  scores[i] = scores[i] and string.format('%.17g', tonumber(scores[i])) or false
end
return {redis.call('GET', KEYS[1]) or '', records, scores, redis.call('HMGET', KEYS[4], unpack(ids))}
