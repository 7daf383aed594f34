-- Every key with its type, the hours until it expires, and its value; sorted.
local lines = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, value = redis.call('TYPE', key).ok, ''
  if kind == 'string' then
    value = redis.call('GET', key)
  elseif kind == 'list' then
    value = table.concat(redis.call('LRANGE', key, 0, -1), ' ')
  elseif kind == 'hash' then
    local all, fields = redis.call('HGETALL', key), {}
    for at = 1, #all, 2 do fields[#fields + 1] = all[at] .. '=' .. all[at + 1] end
    table.sort(fields)
    value = table.concat(fields, ' ')
  elseif kind == 'stream' then
    local info = redis.call('XINFO', 'STREAM', key)
    for at = 1, #info, 2 do
      if info[at] == 'entries-added' then value = tostring(info[at + 1]) end
    end
  end
  local left = redis.call('PTTL', key)
  local lifetime = left == -1 and 'kept' or string.format('%dh', math.ceil(left / 3600000))
  lines[#lines + 1] = table.concat({ key, kind, lifetime, value }, ' ')
end
table.sort(lines)
return lines
