-- Says which rights the user of this connection has beyond what adding jobs takes. It only asks.
--
-- ARGV  keys that are none of the queue's
-- Reply commands that are allowed, with their keys; nil where Redis cannot be asked (before 7.0)

local check = redis.acl_check_cmd
if not check then return nil end

local excess = {}
local function note_if_allowed(command, ...)
  -- A command that this server does not have, or under another name, raises.
  local is_known, is_allowed = pcall(check, command, ...)
  if is_known and is_allowed then
    excess[#excess + 1] = table.concat({command, ...}, ' ', 1, math.min(2, 1 + select('#', ...)))
  end
  return is_known and is_allowed
end

-- Of each key one command is enough, and first those that read.
for _, key in ipairs(ARGV) do
  local _ = note_if_allowed('HGETALL', key) or note_if_allowed('HMGET', key, 'data')
    or note_if_allowed('GET', key) or note_if_allowed('DEL', key) or note_if_allowed('LPUSH', key, '1')
end
note_if_allowed('CONFIG', 'GET', 'requirepass')
note_if_allowed('CONFIG', 'SET', 'requirepass', '')
note_if_allowed('ACL', 'SETUSER', 'default')
note_if_allowed('KEYS', '*')
note_if_allowed('MONITOR')
note_if_allowed('FLUSHALL')
note_if_allowed('SHUTDOWN')
note_if_allowed('REPLICAOF', 'NO', 'ONE')
return excess
