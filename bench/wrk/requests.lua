-- Requests that differ in their path, and at the end one line of JSON with what came of them.
-- Arguments: method, body bytes, runs or 0, files or 0, and a path with RUN and FILE where their numbers go,
-- or @ and a file of paths, which are asked for in turn.
-- Where the number of files is 0, no path is asked for twice.

local count, paths = 0, {}

function init(arguments)
  local path = arguments[5]
  method, runs, files = arguments[1], tonumber(arguments[3]), tonumber(arguments[4])
  if tonumber(arguments[2]) > 0 then
    body = string.rep("o", tonumber(arguments[2]))
  end
  headers = body and { ["Content-Type"] = "application/octet-stream" } or {}
  if path:sub(1, 1) == "@" then
    for line in io.lines(path:sub(2)) do
      paths[#paths + 1] = line
    end
    return
  end
  before, after = path:match("^(.-)RUN(.*)$")
  if not before then
    before, after = nil, path
  end
  middle, last = after:match("^(.-)FILE(.*)$")
  if not middle then
    middle, last = after, nil
  end
end

function request()
  count = count + 1
  if #paths > 0 then
    return wrk.format(method, paths[count % #paths + 1], headers, body)
  end
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
