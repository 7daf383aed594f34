-- Adds the jobs of many requests to a BullMQ queue: one call, one step, and at most once.
--
-- KEYS  1 wait  2 paused  3 meta  4 id  5 events  6 marker  7 active  8 record of the producer
--       then one for each request with an idempotency key: the record of that key
-- ARGV  1 key prefix of jobs  2 job name  3 options of jobs  4 paused layout: auto, v5, v6
--       5 "1" to write events  6 life of the producer's record  7 life of a key's record, both in ms
--       8 number of this batch  9 low-water mark of the producer: it has done with every number up to it
--       10 deadline, in ms by the clock of this server  11 timestamp of jobs
--       12 jobs of all requests; "-" withdraws the batch: no copy of it is carried out any more
--       then the requests. An ordinary one is the data of its only job, which begins with "{".
--       Any other is: jobs, its own options or "", fingerprint of its body if it has an idempotency
--       key or "", tail of the data, and for each of its jobs the head of the data.
--       A call without requests only asks whether jobs would be refused, and writes nothing
-- Reply "<number> <ms by the clock of this server> <what became of it>", which is one of
--       *      all requests have all their jobs added
--       late, stale   nothing is written and nothing will be
--       -      the batch was withdrawn: likewise
--       for each request  A all its jobs are added  R<jobs> its key was used for it, with so many jobs
--                         E none is, a key of Redis is in the way  X its key was used for another body
--
-- A batch whose reply was lost is sent again with its number. The record of the producer tells what
-- was answered before: "<mark>", then " <number>=<what became of it>" for each number above the mark.
--
-- What is called here is asked for in rights.lua as well.
--
-- Redis does not roll back. So whatever can refuse the whole call comes before the first write; the
-- first write is INCRBY (or SET), which a full or read-only Redis refuses; and once a job has been
-- written nothing may raise.

-- What is used for each job is looked up once. `call` raises an error of Redis, `try` returns it.
local KEYS, ARGV, format = KEYS, ARGV, string.format
local call, try = redis.call, redis.pcall

local number, first_request = ARGV[8], 13
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function reply(fates) return number .. ' ' .. format('%d', now) .. ' ' .. fates end

-- Answers that a replica has no right to give: what it knows may be about to be undone. So each takes a write;
-- behind it WAIT waits for the jobs as well.
local function reply_as_primary(fates)
  local touched = try('PEXPIRE', KEYS[8], ARGV[6])
  if type(touched) == 'table' and string.find(touched.err, 'READONLY', 1, true) then return touched end
  return reply(fates)
end

-- Has this batch been here before?

local record = call('GET', KEYS[8])
local mark, kept = tonumber(ARGV[9]), ''
if record then
  local known_mark = tonumber(string.match(record, '^%d+'))
  if tonumber(number) <= known_mark then return reply('stale') end
  mark = math.max(mark, known_mark)
  for known, fates in string.gmatch(record, ' (%d+)=(%S+)') do
    if known == number then return reply_as_primary(fates) end
    if tonumber(known) > mark then kept = kept .. ' ' .. known .. '=' .. fates end
  end
end

local function keep(became)
  call('SET', KEYS[8],
    format('%d', mark) .. kept .. ' ' .. number .. '=' .. became, 'PX', ARGV[6])
end

-- These are kept as well: no other copy is carried out after this reply, whatever the clock shows by then.
if now >= tonumber(ARGV[10]) then
  keep('late')
  return reply('late')
end
if ARGV[12] == '-' then
  keep('-')
  return reply('-')
end

-- Where do jobs go?

local meta = call('HMGET', KEYS[3], 'opts.maxLenEvents', 'paused', 'concurrency', 'version')
local is_paused = meta[2] ~= false
local target = KEYS[1]
if is_paused then
  local layout = ARGV[4]
  if layout == 'auto' then
    -- When release 5 pauses, it renames the list that waits, and when it resumes, it renames it back, over what is
    -- there. Later releases, and Python's, leave the list as it is, and a resume moves up to 7,000 jobs of the other
    -- one to it. So the lists tell who has paused; the version tells only who opened the queue last, if anybody.
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

-- Would jobs be refused? By what comes before this line, by the id, or as writes: SET is one as well, although it finds
-- nothing here that it could change.

-- Beyond it numbers are no longer told from their neighbours.
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

-- Which requests repeat an idempotency key? Fates other than A, by request; keys, and what to record.

local requests, jobs_left = 0, tonumber(ARGV[12])
local fates, key_of, new_record = {}, {}, {}
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
        fates[requests] = body == fingerprint and 'R' .. matched or 'X'
        jobs_left = jobs_left - jobs
      elseif jobs == 0 then
        -- What starts nothing leaves its key free.
        key_of[requests] = nil
      else
        new_record[key] = fingerprint .. ' ' .. jobs
      end
    end
    at = at + (jobs and 4 + jobs or 1)
  end
end

local function spell_fates()
  if next(fates) == nil then return '*' end
  local letters = {}
  for request = 1, requests do letters[request] = fates[request] or 'A' end
  return table.concat(letters)
end

-- Writes: ids, the record as if nothing were in the way, jobs.

local next_id = 1
if jobs_left > 0 then
  local last_id = call('INCRBY', KEYS[4], jobs_left)
  if last_id >= ids_end then return redis.error_reply(ids_used_up) end
  next_id = last_id - jobs_left + 1
end
local expected = spell_fates()
keep(expected)
if not meta[1] then try('HSET', KEYS[3], 'opts.maxLenEvents', '10000') end

local prefix, name, common_options, timestamp = ARGV[1], ARGV[2], ARGV[3], ARGV[11]
local ids, added, refusal = {}, 0, nil

-- Answers whether the key of the job was free, and notes it if it was something else.
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

-- Removes all jobs but the first so many.
local function take_back(all_but)
  while added > all_but do
    try('DEL', prefix .. ids[added])
    ids[added] = nil
    added = added - 1
  end
end

-- All of it or nothing: answers which.
local function write_request(at, jobs)
  local before = added
  local options, tail = ARGV[at + 1], ARGV[at + 3]
  if options == '' then options = common_options end
  for head = at + 4, at + 3 + jobs do
    if not write_job(options, ARGV[head] .. tail) then
      take_back(before)
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
    if not write_job(common_options, ARGV[at]) then fates[requests] = 'E' end
    at = at + 1
  else
    local key = key_of[requests]
    if fates[requests] then
      -- It repeats a request of this very batch that has come to nothing.
      if failed_keys[key] then fates[requests] = 'E' end
    elseif not write_request(at, jobs) then
      fates[requests] = 'E'
      if key then failed_keys[key] = true end
    end
    at = at + 4 + jobs
  end
end

-- unpack() gives up at some 8,000 values.
for first = 1, added, 4000 do
  local pushed = try('LPUSH', target, unpack(ids, first, math.min(first + 3999, added)))
  if type(pushed) ~= 'number' then
    -- This user may not push: nothing has been, then.
    take_back(0)
    refusal = pushed
    for request = 1, requests do
      local key = key_of[request]
      if not fates[request] or (key and new_record[key]) then fates[request] = 'E' end
    end
    break
  end
end

-- Keys are used up when their jobs are there. It takes no right that the producer's record has not shown.
for request, key in pairs(key_of) do
  if not fates[request] then try('SET', key, new_record[key], 'PX', ARGV[7]) end
end
local became = spell_fates()
if became ~= expected then keep(became) end
-- Not a key in the way of one job: Redis would take none.
if refusal and added == 0 then return refusal end

if added > 0 and not is_paused and not is_maxed then
  try('ZADD', KEYS[6], '0', '0')
end

-- Events tell who listens; jobs run without them. The last one trims for all.
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

return reply(became)
