-- What wrk sends: the lines of the file REQUESTS in turn, each a credential, a tab and a body.
-- With RATE, that many a second instead of as fast as answers come. At the end it prints one line of JSON.

local requests = {}
for line in io.lines(os.getenv("REQUESTS")) do
  local credential, body = line:match("^(.-)\t(.*)$")
  requests[#requests + 1] = {
    headers = { ["Authorization"] = "Bearer " .. credential, ["Content-Type"] = "application/json" },
    body = body,
  }
end

wrk.method = "POST"
if #requests == 1 then
  -- Nothing of this file runs for a request then.
  wrk.headers = requests[1].headers
  wrk.body = requests[1].body
else
  local texts = {}
  local last = 0

  function init()
    for index, request in ipairs(requests) do
      request.headers["Host"] = wrk.headers["Host"]
      texts[index] = wrk.format(nil, nil, request.headers, request.body)
    end
    requests = nil
  end

  function request()
    last = last % #texts + 1
    return texts[last]
  end
end

local rate = tonumber(os.getenv("RATE") or "")
if rate then
  local ffi = require("ffi")
  ffi.cdef("struct moment { long seconds, nanoseconds; }; int clock_gettime(int clock, struct moment *now);")
  local MONOTONIC = 1
  local moment = ffi.new("struct moment")
  local due

  -- Milliseconds. Whichever connection is free takes the next moment at which a request is due. They are drawn as for
  -- independent callers (a Poisson process), and the same ones in every run. But wrk's timers tick in whole
  -- milliseconds: what is due within one is sent together, up to two of them early.
  function delay()
    ffi.C.clock_gettime(MONOTONIC, moment)
    local now = tonumber(moment.seconds) * 1000 + tonumber(moment.nanoseconds) / 1e6
    due = (due or now) - math.log(1 - math.random()) * 1000 / rate
    return math.max(0, due - now)
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%f,"refused":%d,"lost":%d,"p50":%f,"p99":%f,"p999":%f}',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3
  ))
end
