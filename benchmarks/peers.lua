-- wrk posts the file BODY repeatedly and prints the results as JSON; latencies in ms.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = os.getenv("HEADER_LENGTH")  -- for Triton only

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local line = '{"requests_per_s": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n'
  local rate = summary.requests / (summary.duration / 1e6)
  io.write(line:format(rate, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
