-- Post the prepared bodies one after the other; print what was measured as one line of JSON.
-- wrk ... -s post.lua URL -- CONTENT_TYPE BODY_FILE...
local requests, turn = {}, 0

function init(args)
  local content_type = args[1]
  for index = 2, #args do
    local file = assert(io.open(args[index], "rb"))
    local body = file:read("*a")
    file:close()
    requests[#requests + 1] = wrk.format("POST", nil, { ["Content-Type"] = content_type }, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration_s": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "bad_status": %d, "broken": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
