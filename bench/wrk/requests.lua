-- Requests that differ in their path, and at the end one line of JSON with what came of them.
-- Arguments: method, body bytes, runs or 0, files or 0, path with RUN and FILE where their numbers go.
-- Where the number of files is 0, no path is asked for twice.

local count = 0

function init(arguments)
  method, runs, files, path = arguments[1], tonumber(arguments[3]), tonumber(arguments[4]), arguments[5]
  if tonumber(arguments[2]) > 0 then
    body = string.rep("o", tonumber(arguments[2]))
  end
  before, after = path:match("^(.-)RUN(.*)$")
  if not before then
    before, after = nil, path
  end
  middle, last = after:match("^(.-)FILE(.*)$")
  if not middle then
    middle, last = after, nil
  end
  headers = body and { ["Content-Type"] = "application/octet-stream" } or {}
end

function request()
  count = count + 1
  local asked = middle
  if before then
    asked = before .. (count % runs) .. asked
  end
  if last then
    asked = asked .. (files > 0 and count % files or count) .. last
  end
  return wrk.format(method, asked, headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f}\n',
    summary.requests,
    summary.duration / 1e6,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3
  ))
end
