-- Adds the jobs of a batch of requests to a BullMQ queue, in one step and at most once.
--
-- KEYS  1 wait  2 paused  3 meta  4 id  5 events  6 marker  7 active  8 record of the producer
--       9 and later: for each request with an idempotency key, the record of that key
-- ARGV  1 key prefix of jobs  2 job name  3 options of jobs  4 paused layout: auto, v5 or v6
--       5 "1" to write events  6 lifetime of the producer's record, in ms
--       7 lifetime of the record of an idempotency key, in ms  8 number of the batch
--       9 low-water mark: the producer is done with every number up to it
--       10 deadline, in ms on the clock of this server  11 timestamp of jobs
--       12 number of jobs of all requests; "-" withdraws the batch: no later attempt is executed
--       13 and later: the requests
--
-- A request has one of two forms. The short form is one argument, the data of its only job, which
-- begins with "{". The long form is: number of jobs; options of these jobs or ""; fingerprint of
-- the body if the request has an idempotency key, or ""; tail of the data; and for each job the
-- head of its data. A call without requests is a dry run: it is refused if jobs would be refused, and
-- writes nothing.
--
-- Reply  "<number> <ms on the clock of this server> <result>". The result is one of
--        *      every job of every request was added
--        late   the deadline has passed; no job is added and none will be
--        stale  the number is not above the low-water mark; no job is added and none will be
--        -      the batch is withdrawn; no job is added and none will be
--        or one outcome for each request, without separators:
--        A        all its jobs were added
--        R<jobs>  its idempotency key was used before for the same body, with this number of jobs
--        E        none of its jobs was added, because another value holds a key that a job needs
--        X        its idempotency key was used before for another body
--
-- The producer sends a batch again, under the same number, if the reply was lost. Each such call is
-- an attempt. The record of the producer holds what was replied before: "<mark>", then
-- " <number>=<result>" for each number above the mark.
--
-- acl.lua checks the permission for every command that this script calls.
--
-- Redis does not roll back. Therefore every check that can refuse the whole call comes before the
-- first write. The first write is INCRBY (or SET), which a full or read-only Redis refuses. After a
-- job has been written, nothing may raise an error.

-- Globals that are used for each job are looked up once. `call` raises an error of Redis, `try`
-- returns it.
local KEYS, ARGV, format = KEYS, ARGV, string.format
local call, try = redis.call, redis.pcall

local number, first_request = ARGV[8], 13
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function reply(result) return number .. ' ' .. format('%d', now) .. ' ' .. result end

-- Replies with a recorded result, which a replica must not report: a resynchronization may undo
-- what the replica has. The write proves that this server is the primary. It also makes a following
-- WAIT cover the jobs, because WAIT counts from the last write of the connection.
local function reply_as_primary(result)
  local touched = try('PEXPIRE', KEYS[8], ARGV[6])
  if type(touched) == 'table' and string.find(touched.err, 'READONLY', 1, true) then return touched end
  return reply(result)
end

-- Was this batch executed before? The number is looked up before the deadline is checked, because a
-- late attempt of a batch that was added in time must report "added".

local record = call('GET', KEYS[8])
local mark, other_entries = tonumber(ARGV[9]), ''
if record then
  local recorded_mark = tonumber(string.match(record, '^%d+'))
  if tonumber(number) <= recorded_mark then return reply('stale') end
  mark = math.max(mark, recorded_mark)
  for recorded, result in string.gmatch(record, ' (%d+)=(%S+)') do
    if recorded == number then return reply_as_primary(result) end
    if tonumber(recorded) > mark then
      other_entries = other_entries .. ' ' .. recorded .. '=' .. result
    end
  end
end

local function write_record(result)
  call('SET', KEYS[8],
    format('%d', mark) .. other_entries .. ' ' .. number .. '=' .. result, 'PX', ARGV[6])
end

-- Both results are recorded, so that no other attempt is executed after this reply, even if the
-- clock of this server is set back.
if now >= tonumber(ARGV[10]) then
  write_record('late')
  return reply('late')
end
if ARGV[12] == '-' then
  write_record('-')
  return reply('-')
end

-- Which list do jobs go to?

local meta = call('HMGET', KEYS[3], 'opts.maxLenEvents', 'paused', 'concurrency', 'version')
local is_paused = meta[2] ~= false
local target = KEYS[1]
if is_paused then
  local layout = ARGV[4]
  if layout == 'auto' then
    -- BullMQ 5 pauses by renaming `wait` to `paused`. It resumes by renaming `paused` to `wait`,
    -- which overwrites `wait`. Later releases and BullMQ for Python leave `wait` in place when they
    -- pause; their resume moves up to 7,000 jobs from `paused` to `wait`. The lists therefore show
    -- which release has paused the queue. `meta.version` shows only which release opened the queue
    -- last, and may be absent.
    local has_waiting, has_paused = call('LLEN', KEYS[1]) > 0, call('LLEN', KEYS[2]) > 0
    local major = meta[4] and tonumber(string.match(meta[4], '^bullmq:(%d+)%.'))
    local is_v6 = has_waiting
    if has_waiting == has_paused and major then is_v6 = major >= 6 end
    layout = is_v6 and 'v6' or 'v5'
  end
  if layout == 'v5' then target = KEYS[2] end
end
call('LLEN', target)
local is_maxed = meta[3] and call('LLEN', KEYS[7]) >= tonumber(meta[3])

-- A dry run is refused if jobs would be refused: by a call above, by the id of the queue, or because
-- Redis refuses writes. SET with XX is a write to Redis, but changes nothing, because the key does
-- not exist.

-- Lua numbers are doubles, which represent every integer up to this bound.
local ids_end, ids_used_up = 2 ^ 53, 'ERR the ids of the queue are used up'
local last = #ARGV
if last < first_request then
  local id = call('GET', KEYS[4]) or '0'
  if not string.match(id, '^%-?%d+$') then
    return redis.error_reply('ERR the id of the queue is not an integer')
  end
  if tonumber(id) + 1 >= ids_end then return redis.error_reply(ids_used_up) end
  call('SET', KEYS[8], '', 'XX', 'PX', '1')
  return reply('*')
end

-- Which requests repeat an idempotency key?

-- outcomes: the outcome of a request, unless it is A. key_of: the record key of a request.
-- new_record: the value to write for a record key.
local requests, jobs_left = 0, tonumber(ARGV[12])
local outcomes, key_of, new_record = {}, {}, {}
if #KEYS > 8 then
  local at, last_key = first_request, 8
  while at <= last do
    local jobs = tonumber(ARGV[at])
    requests = requests + 1
    if jobs and ARGV[at + 2] ~= '' then
      last_key = last_key + 1
      local key, fingerprint = KEYS[last_key], ARGV[at + 2]
      local used = new_record[key] or call('GET', key)
      key_of[requests] = key
      if used then
        local body, matched = string.match(used, '^(%x+) (%d+)$')
        outcomes[requests] = body == fingerprint and 'R' .. matched or 'X'
        jobs_left = jobs_left - jobs
      elseif jobs == 0 then
        -- A request without jobs does not use its key up.
        key_of[requests] = nil
      else
        new_record[key] = fingerprint .. ' ' .. jobs
      end
    end
    at = at + (jobs and 4 + jobs or 1)
  end
end

local function encode_outcomes()
  if next(outcomes) == nil then return '*' end
  local letters = {}
  for request = 1, requests do letters[request] = outcomes[request] or 'A' end
  return table.concat(letters)
end

-- Writes. First the ids, then the record as if there were no key conflict, then the jobs.

local next_id = 1
if jobs_left > 0 then
  local last_id = call('INCRBY', KEYS[4], jobs_left)
  if last_id >= ids_end then return redis.error_reply(ids_used_up) end
  next_id = last_id - jobs_left + 1
end
local expected = encode_outcomes()
write_record(expected)
if not meta[1] then try('HSET', KEYS[3], 'opts.maxLenEvents', '10000') end

local prefix, name, common_options, timestamp = ARGV[1], ARGV[2], ARGV[3], ARGV[11]
local ids, added, refusal = {}, 0, nil

-- Writes the hash of a job and returns whether that succeeded. WRONGTYPE means that another value
-- holds the key. Any other error is stored in `refusal`.
local function write_job(options, data)
  local id = format('%d', next_id)
  next_id = next_id + 1
  local written = try('HSET', prefix .. id, 'name', name, 'data', data, 'opts', options,
    'timestamp', timestamp, 'delay', '0', 'priority', '0')
  if type(written) ~= 'number' then
    if not string.find(written.err, 'WRONGTYPE', 1, true) then refusal = written end
    return false
  end
  added = added + 1
  ids[added] = id
  return true
end

-- Removes the jobs that were added after the first `count`.
local function remove_jobs_after(count)
  while added > count do
    try('DEL', prefix .. ids[added])
    ids[added] = nil
    added = added - 1
  end
end

-- Writes all jobs of a request or none, and returns whether it has written them.
local function write_request(at, jobs)
  local before = added
  local options, tail = ARGV[at + 1], ARGV[at + 3]
  if options == '' then options = common_options end
  for head = at + 4, at + 3 + jobs do
    if not write_job(options, ARGV[head] .. tail) then
      remove_jobs_after(before)
      return false
    end
  end
  return true
end

local at, failed_keys = first_request, {}
requests = 0
while at <= last do
  requests = requests + 1
  local jobs = tonumber(ARGV[at])
  if not jobs then
    if not write_job(common_options, ARGV[at]) then outcomes[requests] = 'E' end
    at = at + 1
  else
    local key = key_of[requests]
    if outcomes[requests] then
      -- The request that it repeats is in the same batch and has added nothing.
      if failed_keys[key] then outcomes[requests] = 'E' end
    elseif not write_request(at, jobs) then
      outcomes[requests] = 'E'
      if key then failed_keys[key] = true end
    end
    at = at + 4 + jobs
  end
end

-- unpack() fails at about 8,000 values.
for first = 1, added, 4000 do
  local pushed = try('LPUSH', target, unpack(ids, first, math.min(first + 3999, added)))
  if type(pushed) ~= 'number' then
    -- This user may not use LPUSH, so no chunk was pushed before.
    remove_jobs_after(0)
    refusal = pushed
    for request = 1, requests do
      local key = key_of[request]
      if not outcomes[request] or (key and new_record[key]) then outcomes[request] = 'E' end
    end
    break
  end
end

-- An idempotency key is used up only if its jobs were added. This user may use SET, because the
-- record of the producer was written with it.
for request, key in pairs(key_of) do
  if not outcomes[request] then try('SET', key, new_record[key], 'PX', ARGV[7]) end
end
local result = encode_outcomes()
if result ~= expected then write_record(result) end
-- This is not the key conflict of one job: Redis refuses every job.
if refusal and added == 0 then return refusal end

if added > 0 and not is_paused and not is_maxed then
  try('ZADD', KEYS[6], '0', '0')
end

-- Events inform listeners; jobs run without them. Only the last XADD trims the stream.
if ARGV[5] == '1' then
  local events, max_length = KEYS[5], meta[1] or '10000'
  for i = 1, added do
    local id = ids[i]
    try('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    if i < added then
      try('XADD', events, '*', 'event', 'waiting', 'jobId', id)
    else
      try('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id)
    end
  end
end

return reply(result)
