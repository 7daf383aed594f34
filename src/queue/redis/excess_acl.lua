-- Lists commands that this user may use and that adding jobs does not need. Executes none of them.
--
-- ARGV   keys that do not belong to the queue
-- Reply  the allowed commands, each with its key; nil before Redis 7.0, which has no acl_check_cmd

local check = redis.acl_check_cmd
if not check then return nil end

local excess = {}
local function note_if_allowed(command, ...)
  -- The check raises an error for a command that does not exist on this server or was renamed.
  local is_known, is_allowed = pcall(check, command, ...)
  if is_known and is_allowed then
    excess[#excess + 1] = table.concat({command, ...}, ' ', 1, math.min(2, 1 + select('#', ...)))
  end
  return is_known and is_allowed
end

-- One allowed command per key is enough. Commands that read come first.
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
