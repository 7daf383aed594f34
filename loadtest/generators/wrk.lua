-- What wrk sends: the lines of the file REQUESTS in turn, each a credential, a tab and a body.
-- At the end it prints one line of JSON.

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

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%f,"refused":%d,"lost":%d,"p50":%f,"p99":%f,"p999":%f}',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3
  ))
end
