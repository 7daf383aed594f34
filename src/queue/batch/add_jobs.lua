-- Adds the jobs of a batch of requests to a BullMQ queue, in one step and at most once.
--
-- KEYS  1 wait  2 paused  3 meta  4 id  5 events  6 marker  7 active  8 record of the producer
--       9 and later: for each request with an idempotency key, the record of that key; then the
--       staged hashes
-- ARGV  1 key prefix of jobs  2 job name  3 options of jobs  4 paused layout: auto, v5 or v6
--       5 "1" to write events  6 lifetime of the producer's record, in ms
--       7 number of the batch
--       8 low-water mark, below the number: the producer is done with every number up to it
--       9 deadline, in ms on the clock of this server  10 timestamp of jobs
--       11 number of jobs of all requests; "-" withdraws the batch: no later attempt is executed
--       12 and later: the requests
--
-- A request has one of two forms. The short form is one argument, the data of its only job, which
-- begins with "{". The long form is: number of jobs; options of these jobs or ""; if the request has
-- an idempotency key, "<fingerprint> <lifetime of the record in ms>", else ""; tail of the data; and
-- for each job the head of its data. If the head is "", the tail is the name of a staged hash: the
-- hash of the job, which the same transaction has written before this call, with a time to live. A
-- call without requests is a dry run: it is refused if jobs would be refused, and writes nothing.
--
-- Reply  "<number> <ms on the clock of this server> <result>". The result is one of
--        *      every job of every request was added
--        late   the deadline has passed; no job is added and none will be
--        stale  the number is not above the low-water mark; no job is added and none will be
--        -      the batch is withdrawn; no job is added and none will be
--        or one outcome for each request, without separators:
--        A        all its jobs were added
--        R<jobs>  its idempotency key was used before with this fingerprint and number of jobs
--        E        none of its jobs was added, because another value holds a key that a job needs
--        X        its idempotency key was used before with another fingerprint
--
-- Requests with one idempotency key add their jobs once: those with the same `Idempotency-Key`, and
-- deliveries with the same id. Deliveries all have one fingerprint.
--
-- The producer sends a batch again, under the same number, if the reply was lost. Each such call is
-- an attempt. The record of the producer holds what was replied before: "<mark>", then
-- " <number>=<result>" for each number above the mark.
--
-- acl.lua checks the permission for every command that this script calls.
--
-- Redis does not roll back. Therefore everything is read first, and an error of a read ends the
-- call without a change. The first write stores the record of the producer as if every job were
-- added, and returns the previous record in the same command. A full or read-only Redis refuses it;
-- no later write is refused for these reasons. If no job can be added after all, the previous
-- record is put back. After a job has been written, nothing may raise an error.
--
-- A call with one job should cost little more than the commands that BullMQ needs. So the ordinary
-- case has no further commands, no closures and no pattern matching.

-- Globals that are used for each job are looked up once. `call` raises an error of Redis, `try`
-- returns it.
local KEYS, ARGV, format = KEYS, ARGV, string.format
local call, try = redis.call, redis.pcall

local number, mark, lifetime = ARGV[7], ARGV[8], ARGV[6]
local first_request, last = 12, #ARGV
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = number .. ' ' .. format('%d', now) .. ' '

-- Which list do jobs go to?

local meta = call('HMGET', KEYS[3], 'opts.maxLenEvents', 'paused', 'concurrency', 'version')
local target, wakes_worker = KEYS[1], true
if meta[2] then
  wakes_worker = false
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
if meta[3] then
  -- All workers are busy if the queue runs as many jobs as it may.
  local bound = tonumber(meta[3])
  if bound and call('LLEN', KEYS[7]) >= bound then wakes_worker = false end
end

-- A dry run is refused if jobs would be refused: by a call above, by the keys of a wrong type, by
-- the id of the queue, or because Redis refuses writes. SET with XX is a write to Redis, but
-- changes nothing, because the key does not exist.

-- Lua numbers are doubles, which represent every integer up to this bound.
local ids_end, ids_used_up = 2 ^ 53, 'ERR the ids of the queue are used up'
if last < first_request and ARGV[11] ~= '-' then
  call('GET', KEYS[8])
  call('LLEN', target)
  local id = call('GET', KEYS[4]) or '0'
  if not string.match(id, '^%-?%d+$') then
    return redis.error_reply('ERR the id of the queue is not an integer')
  end
  if tonumber(id) + 1 >= ids_end then return redis.error_reply(ids_used_up) end
  call('SET', KEYS[8], '', 'XX', 'PX', '1')
  return reply .. '*'
end

-- Which requests repeat an idempotency key?

-- outcomes: the outcome of a request, unless it is A. key_of: the record key of a request.
-- new_record, lifetime_of: the value to write for a record key, and how long it lives.
local requests, jobs_left = 0, tonumber(ARGV[11])
local outcomes, key_of, new_record, lifetime_of, staged
if #KEYS > 8 then
  outcomes, key_of, new_record, lifetime_of, staged = {}, {}, {}, {}, {}
  local at, last_key = first_request, 8
  while at <= last do
    local jobs = tonumber(ARGV[at])
    requests = requests + 1
    if jobs and ARGV[at + 4] == '' then staged[#staged + 1] = ARGV[at + 3] end
    if jobs and ARGV[at + 2] ~= '' then
      last_key = last_key + 1
      local key = KEYS[last_key]
      local fingerprint, key_lifetime = string.match(ARGV[at + 2], '^(%x+) (%d+)$')
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
        new_record[key], lifetime_of[key] = fingerprint .. ' ' .. jobs, key_lifetime
      end
    end
    at = at + (jobs and 4 + jobs or 1)
  end
  if #staged == 0 then staged = nil end
end

-- Was this batch executed before? The number is looked up before the deadline is checked, because a
-- late attempt of a batch that was added in time must report "added".

local entries = mark .. ' ' .. number .. '='
local previous = try('SET', KEYS[8], entries .. '*', 'PX', lifetime, 'GET')
local refusal
if type(previous) == 'table' then
  refusal, previous = previous, call('GET', KEYS[8])
end
-- Usually the record holds only the batch before this one, and all its jobs were added.
if previous and (refusal or previous ~= format('%d', mark - 1) .. ' ' .. mark .. '=*') then
  local recorded_mark = tonumber(string.match(previous, '^%d+'))
  if not recorded_mark then
    if not refusal then call('SET', KEYS[8], previous, 'PX', lifetime) end
    return redis.error_reply('ERR the record of the producer is unreadable')
  end
  local known = tonumber(number) <= recorded_mark and 'stale'
  mark = math.max(mark, recorded_mark)
  entries = format('%d', mark)
  for recorded, result in string.gmatch(previous, ' (%d+)=(%S+)') do
    if recorded == number then known = known or result end
    if tonumber(recorded) > mark then entries = entries .. ' ' .. recorded .. '=' .. result end
  end
  if known then
    -- A replica must not report a recorded result: a resynchronization may undo what it has. A
    -- write proves that this server is the primary. It also makes a following WAIT cover the jobs,
    -- because WAIT counts from the last write of the connection.
    if refusal then
      local touched = try('PEXPIRE', KEYS[8], lifetime)
      local is_replica = type(touched) == 'table' and string.find(touched.err, 'READONLY', 1, true)
      if is_replica then return touched end
    else
      call('SET', KEYS[8], previous, 'PX', lifetime)
    end
    if staged then try('UNLINK', unpack(staged)) end
    return reply .. known
  end
  entries = entries .. ' ' .. number .. '='
  if not refusal then call('SET', KEYS[8], entries .. '*', 'PX', lifetime) end
end
if refusal then
  if staged then try('UNLINK', unpack(staged)) end
  return refusal
end

-- Both results are recorded, so that no other attempt is executed after this reply, even if the
-- clock of this server is set back.
local ending = now >= tonumber(ARGV[9]) and 'late' or ARGV[11]
if ending == 'late' or ending == '-' then
  call('SET', KEYS[8], entries .. ending, 'PX', lifetime)
  if staged then try('UNLINK', unpack(staged)) end
  return reply .. ending
end

-- Writes. First the ids, then the jobs.

local next_id = 0
if jobs_left > 0 then
  local last_id = try('INCRBY', KEYS[4], jobs_left)
  if type(last_id) == 'table' then
    refusal = last_id
  elseif last_id >= ids_end then
    refusal = redis.error_reply(ids_used_up)
  else
    next_id = last_id - jobs_left
  end
end

local prefix, name, common_options, timestamp = ARGV[1], ARGV[2], ARGV[3], ARGV[10]
local ids, added, at, failed_keys = {}, 0, first_request, nil
requests = 0
while at <= last and not refusal do
  requests = requests + 1
  local jobs = tonumber(ARGV[at])
  local options, tail, first_head, last_head = common_options, '', at, at
  if jobs then
    if ARGV[at + 1] ~= '' then options = ARGV[at + 1] end
    tail, first_head, last_head = ARGV[at + 3], at + 4, at + 3 + jobs
  end
  at = last_head + 1

  local repeated = outcomes and outcomes[requests]
  if repeated then
    -- The request that it repeats may be in the same batch and may have added nothing.
    if failed_keys and failed_keys[key_of[requests]] then outcomes[requests] = 'E' end
    last_head = 0
  end
  local before = added
  for head = first_head, last_head do
    next_id = next_id + 1
    local id = format('%d', next_id)
    local written, is_held
    if ARGV[head] == '' then
      written = try('RENAMENX', tail, prefix .. id)
      is_held = written == 0
      local kept = written == 1 and try('PERSIST', prefix .. id)
      if type(kept) == 'table' then
        -- The job would expire.
        try('DEL', prefix .. id)
        written = kept
      end
    else
      written = try('HSET', prefix .. id, 'name', name, 'data', ARGV[head] .. tail,
        'opts', options, 'timestamp', timestamp, 'delay', '0', 'priority', '0')
    end
    if is_held or type(written) == 'table' then
      -- WRONGTYPE means that another value holds the key. Any other error applies to every job.
      is_held = is_held or string.find(written.err, 'WRONGTYPE', 1, true)
      if not is_held then refusal = written end
      -- A request adds all its jobs or none.
      while added > before do
        try('DEL', prefix .. ids[added])
        ids[added] = nil
        added = added - 1
      end
      next_id = next_id + last_head - head
      outcomes, key_of, failed_keys = outcomes or {}, key_of or {}, failed_keys or {}
      outcomes[requests] = 'E'
      if key_of[requests] then failed_keys[key_of[requests]] = true end
      break
    end
    added = added + 1
    ids[added] = id
  end
end

-- unpack() fails at about 8,000 values.
for first = 1, added, 4000 do
  local pushed = try('LPUSH', target, unpack(ids, first, math.min(first + 3999, added)))
  if type(pushed) == 'table' then
    -- Another value holds the key, or this user may not use LPUSH. So no chunk was pushed before.
    refusal = pushed
    break
  end
end

-- This is not the key conflict of one job: Redis refuses every job.
if refusal then
  if staged then try('UNLINK', unpack(staged)) end
  for each = 1, added do try('DEL', prefix .. ids[each]) end
  call('SET', KEYS[8], previous or ARGV[8], 'PX', lifetime)
  return refusal
end

local result = '*'
if outcomes then
  -- Those of requests that have added nothing; the others have been renamed.
  if staged then try('UNLINK', unpack(staged)) end
  -- An idempotency key is used up only if its jobs were added.
  for request, key in pairs(key_of) do
    if not outcomes[request] then try('SET', key, new_record[key], 'PX', lifetime_of[key]) end
  end
  if next(outcomes) then
    for request = 1, requests do outcomes[request] = outcomes[request] or 'A' end
    result = table.concat(outcomes)
    call('SET', KEYS[8], entries .. result, 'PX', lifetime)
  end
end

if not meta[1] then try('HSET', KEYS[3], 'opts.maxLenEvents', '10000') end
if added > 0 and wakes_worker then try('ZADD', KEYS[6], '0', '0') end

-- Events inform listeners; jobs run without them. Only the last XADD trims the stream.
if ARGV[5] == '1' then
  local events, max_length = KEYS[5], meta[1] or '10000'
  for each = 1, added do
    local id = ids[each]
    try('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    if each < added then
      try('XADD', events, '*', 'event', 'waiting', 'jobId', id)
    else
      try('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id)
    end
  end
end

return reply .. result
