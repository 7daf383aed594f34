-- Lists the commands that adding jobs needs and this user may not use. Executes none of them.
--
-- ARGV   1 wait  2 paused  3 meta  4 id  5 events  6 marker  7 active  8 record of a producer
--        9 record of an idempotency key  10 a job  11 "1" if WAIT is used  12 "1" to write events
-- Reply  the refused commands, each with its key; nil before Redis 7.0, which has no acl_check_cmd
--
-- The keys are not passed as KEYS, because Redis would refuse the whole call if the user may not
-- access one of them.

local check = redis.acl_check_cmd
if not check then return nil end

local wait, paused, meta, id, events, marker, active, producer, idempotency, job, waits, writes_events =
  unpack(ARGV)
local needed = {
  {'EVALSHA', string.rep('0', 40), '0'}, {'TIME'},
  {'GET', producer}, {'SET', producer, '', 'PX', '1', 'GET'}, {'PEXPIRE', producer, '1'},
  {'GET', idempotency}, {'SET', idempotency, '', 'PX', '1'},
  {'HMGET', meta, 'version'}, {'HSET', meta, 'opts.maxLenEvents', '1'},
  {'LLEN', wait}, {'LLEN', paused}, {'LLEN', active},
  {'INCRBY', id, '1'}, {'HSET', job, 'name', ''}, {'DEL', job},
  {'MULTI'}, {'EXEC'}, {'HSET', producer, 'name', ''}, {'RENAMENX', producer, job},
  {'PERSIST', job}, {'UNLINK', producer},
  {'LPUSH', wait, '1'}, {'LPUSH', paused, '1'},
  {'ZADD', marker, '0', '0'},
}
if writes_events == '1' then needed[#needed + 1] = {'XADD', events, '*', 'event', 'added'} end
if waits == '1' then needed[#needed + 1] = {'WAIT', '0', '1'} end

local is_key, missing = {}, {}
for i = 1, 10 do is_key[ARGV[i]] = true end
for _, command in ipairs(needed) do
  -- The check raises an error for a command that does not exist on this server or was renamed.
  local is_known, is_allowed = pcall(check, unpack(command))
  if not (is_known and is_allowed) then
    missing[#missing + 1] = command[1] .. (is_key[command[2]] and ' ' .. command[2] or '')
  end
end
return missing
