-- Adds the jobs of many requests to a BullMQ queue: one call, one step.
--
-- KEYS  1 wait  2 paused  3 meta  4 id  5 events  6 marker  7 active
-- ARGV  1 key prefix of jobs  2 job name  3 options of jobs  4 paused layout: auto, v5, v6
--       5 "1" to write events  6 jobs of all requests
--       then for each request: jobs, timestamp, its own options or "", tail of the data,
--       and for each of its jobs the head of the data
-- Reply one letter for each request: A all its jobs are added, E none is
--
-- Redis does not roll back. So whatever can refuse the whole call comes before the first write; the
-- first write is INCRBY, which a full or read-only Redis refuses; and behind it nothing may raise.

local meta = redis.call('HMGET', KEYS[3], 'opts.maxLenEvents', 'paused', 'concurrency', 'version')
local is_paused = meta[2] ~= false

local target = KEYS[1]
if is_paused then
  local layout = ARGV[4]
  if layout == 'auto' then
    local major = meta[4] and tonumber(string.match(meta[4], '^bullmq:(%d+)%.'))
    layout = (major and major >= 6) and 'v6' or 'v5'
  end
  if layout == 'v5' then target = KEYS[2] end
end

redis.call('LLEN', target)
local is_maxed = false
if meta[3] then
  is_maxed = redis.call('LLEN', KEYS[7]) >= tonumber(meta[3])
end

local last_id = redis.call('INCRBY', KEYS[4], ARGV[6])
local next_id = last_id - tonumber(ARGV[6]) + 1
if not meta[1] then
  redis.pcall('HSET', KEYS[3], 'opts.maxLenEvents', '10000')
end

local prefix, name = ARGV[1], ARGV[2]
local ids, added = {}, 0

-- Writes the hashes of one request, whose first head is ARGV[heads]. Their ids are behind ids[added].
local function write_jobs(jobs, timestamp, options, tail, heads)
  for i = 0, jobs - 1 do
    local id = string.format('%.0f', next_id + i)
    redis.call('HSET', prefix .. id,
      'name', name, 'data', ARGV[heads + i] .. tail, 'opts', options,
      'timestamp', timestamp, 'delay', '0', 'priority', '0')
    ids[added + i + 1] = id
  end
end

local status = {}
local at = 7
while at <= #ARGV do
  local jobs = tonumber(ARGV[at])
  local options = ARGV[at + 2]
  if options == '' then options = ARGV[3] end
  if pcall(write_jobs, jobs, ARGV[at + 1], options, ARGV[at + 3], at + 4) then
    added = added + jobs
    status[#status + 1] = 'A'
  else
    -- A key of the job's name holds something else. All or none: take back what was written.
    for i = #ids, added + 1, -1 do
      redis.pcall('DEL', prefix .. ids[i])
      ids[i] = nil
    end
    status[#status + 1] = 'E'
  end
  next_id = next_id + jobs
  at = at + 4 + jobs
end

-- unpack() gives up at some 8,000 values.
for first = 1, added, 4000 do
  local pushed = redis.pcall('LPUSH', target, unpack(ids, first, math.min(first + 3999, added)))
  if first == 1 and type(pushed) == 'table' and pushed.err then
    -- This user may not push: take back all hashes.
    for i = 1, added do redis.pcall('DEL', prefix .. ids[i]) end
    return string.rep('E', #status)
  end
end

if added > 0 and not is_paused and not is_maxed then
  redis.pcall('ZADD', KEYS[6], '0', '0')
end

-- Events tell who listens; jobs run without them. The last one trims for all.
if ARGV[5] == '1' then
  for i = 1, added do
    redis.pcall('XADD', KEYS[5], '*', 'event', 'added', 'jobId', ids[i], 'name', name)
    if i < added then
      redis.pcall('XADD', KEYS[5], '*', 'event', 'waiting', 'jobId', ids[i])
    else
      redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', meta[1] or '10000', '*',
        'event', 'waiting', 'jobId', ids[i])
    end
  end
end

return table.concat(status)
