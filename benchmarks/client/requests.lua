-- What wrk asks for: `row`, `page`, `create` or `live`. Ends with a line of JSON.
local ROWS = 10000
local kind

local requests = {
    row = function()
        return wrk.format("GET", string.format("/items/00000000-0000-7000-8000-%012x", math.random(ROWS)))
    end,
    page = function() return wrk.format("GET", "/items?limit=50") end,
    live = function() return wrk.format("GET", "/livez") end,
    create = function()
        return wrk.format("POST", "/items", {["Content-Type"] = "application/json"},
            '{"name": "bench", "description": "made under load", "quantity": 7}')
    end,
}

function init(arguments)
    kind = arguments[1]
    math.randomseed(7)
end

function request() return requests[kind]() end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        e.connect + e.read + e.write + e.timeout + e.status))
end
