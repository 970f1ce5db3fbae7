-- Loaded by HAProxy. Where no host of a pool may take a request, HAProxy would refuse it at once: here it waits.
-- fleet_wait POOL MOST MS: until a host is there, or MS (or the request's own x-request-timeout-ms) have passed. Sets
-- txn.why where it was in vain. "fleet waiting" on the runtime API says how many wait.
local STEP_MS = 10
local waiting = {}

local function count(pool)
  local n = 0
  for _ in pairs(waiting[pool]) do n = n + 1 end
  return n
end

core.register_action("fleet_wait", {"http-req"}, function(txn, pool, most, ms)
  local tickets = waiting[pool]
  if tickets == nil then
    -- Weak: HAProxy drops the coroutine of a client that left, and the ticket with it.
    tickets = setmetatable({}, {__mode = "k"})
    waiting[pool] = tickets
  end
  most = tonumber(most)
  if count(pool) >= most then
    collectgarbage()
    if count(pool) >= most then
      txn:set_var("txn.why", string.format("and %d requests wait already", most))
      return
    end
  end
  local ticket = {}
  tickets[ticket] = true
  local left = tonumber(ms)
  local own = tonumber(txn.f:req_fhdr("x-request-timeout-ms") or "")
  if own ~= nil and own > 0 and own < left then left = own end
  local told = "and none came in time"
  -- A process that finishes its last requests says nbsrv 0, whatever its hosts do.
  while txn.f:nbsrv(pool) == 0 and txn.f:stopping() == 0 do
    if left <= 0 then
      txn:set_var("txn.why", told)
      break
    end
    core.msleep(STEP_MS)
    left = left - STEP_MS
  end
  tickets[ticket] = nil
end, 3)

core.register_cli({"fleet", "waiting"}, "fleet waiting: POOL NUMBER, requests for which there is no host", function(applet)
  collectgarbage()
  for pool in pairs(waiting) do
    applet:send(string.format("%s %d\n", pool, count(pool)))
  end
end)
