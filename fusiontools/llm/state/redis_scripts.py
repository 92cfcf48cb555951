"""What Redis or Valkey runs whole, in Lua: each step of the shared state that reads before it writes."""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""
# The lease of a call is `h` (held) or `d` (done) and its fence. A fence is the time in microseconds: later leases have
# later ones, also where the key of an earlier one has run out.
ACQUIRE = """
local kept = redis.call('GET', KEYS[1])
local last = 0
if kept then
  last = tonumber(string.sub(kept, 2))
  if string.sub(kept, 1, 1) == 'h' then return {'held', string.sub(kept, 2)} end
  local waited = tonumber(ARGV[2])
  if waited > 0 and waited <= last then return {'done', '0'} end
end
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return {'done', '0'} end
local time = redis.call('TIME')
local fence = math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), last + 1)
local said = string.format('%.0f', fence)
redis.call('SET', KEYS[1], 'h' .. said, 'PX', ARGV[1])
return {'lease', said}
"""
RENEW = """
if redis.call('GET', KEYS[1]) == 'h' .. ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
"""
RELEASE = """
if redis.call('GET', KEYS[1]) == 'h' .. ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
KEEP = """
if redis.call('GET', KEYS[1]) == 'h' .. ARGV[1] then
  redis.call('SET', KEYS[1], 'd' .. ARGV[1], 'PX', ARGV[2])
  redis.call('SET', KEYS[2], ARGV[3])
else
  redis.call('SET', KEYS[2], ARGV[3], 'NX')
end
"""
FORGET = """
local made = tonumber(string.match(redis.call('GETRANGE', KEYS[1], 0, 19), '^%S+'))
if made and made < tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
"""
NOTE = (
    _NOW
    + """
local oldest = string.format('%.0f', now * 1000 - tonumber(ARGV[2]))
local number = redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', '', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return number
"""
)
# Of what is granted: when each part comes back, how much it is, who was granted any, and the sum.
GRANT = (
    _NOW
    + """
local least, most, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local window, valid = tonumber(ARGV[6]), tonumber(ARGV[7])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('DECRBY', KEYS[4], redis.call('HGET', KEYS[2], id) or 0)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local used = tonumber(redis.call('GET', KEYS[4]) or 0)
local workers = redis.call('ZCARD', KEYS[3])
if not redis.call('ZSCORE', KEYS[3], ARGV[2]) then workers = workers + 1 end
if used > 0 and used + least > limit then
  local wanted, free = used + least - limit, now + window
  local parts = redis.call('ZRANGE', KEYS[1], 0, 99, 'WITHSCORES')
  for i = 1, #parts, 2 do
    wanted = wanted - tonumber(redis.call('HGET', KEYS[2], parts[i]) or 0)
    free = tonumber(parts[i + 1])
    if wanted <= 0 then break end
  end
  return {0, tostring(free - now), workers}
end
local block = math.floor(limit * valid / window / workers)
local count = math.max(least, math.min(most, block, limit - used))
redis.call('ZADD', KEYS[1], now + valid + window, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], count)
redis.call('ZADD', KEYS[3], now + valid + window, ARGV[2])
redis.call('INCRBY', KEYS[4], count)
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], math.ceil((window + valid) * 1000) + 1000) end
return {count, '0', workers}
"""
)
GIVE_BACK = """
local count = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local back = math.min(count, tonumber(ARGV[2]))
if back > 0 then
  redis.call('HSET', KEYS[2], ARGV[1], count - back)
  redis.call('DECRBY', KEYS[4], back)
end
"""
# Of who holds places: until when, and `count wanted`.
HOLD = (
    _NOW
    + """
local busy, wanted, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], owner)
  redis.call('HDEL', KEYS[2], owner)
end
local all = redis.call('HGETALL', KEYS[2])
local others = #all / 2
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then others = others - 1 end
local even = math.max(1, math.floor(limit / (others + 1)))
local left, free = limit, limit
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local held, theirs = string.match(all[i + 1], '(%d+) (%d+)')
    left = left - math.max(tonumber(held), math.min(tonumber(theirs), even))
    free = free - tonumber(held)
  end
end
local target = math.min(wanted, math.max(left, math.min(1, free)))
if wanted > 0 then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %.0f', math.max(busy, target), wanted))
  for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], math.ceil(tonumber(ARGV[5]) * 1000) + 1000) end
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return target
"""
)
# What is spent of each purse, and when it was last; what is in flight of each; reservations, the end of each, and when
# one was swept; calls in flight to each endpoint and model; a number that rises with every change.
MONEY = ("spent", "used", "flying", "reserved", "ends", "swept", "calls", "changes")
_BOOKING = (
    _NOW
    + """
local function spend(purse, nano)
  local sum = redis.call('HINCRBY', KEYS[1], purse, string.format('%.0f', nano))
  if sum < 0 then redis.call('HSET', KEYS[1], purse, 0) end
  redis.call('ZADD', KEYS[2], now, purse)
end
local function land(made)
  for _, purse in ipairs(made.purses) do
    if redis.call('HINCRBY', KEYS[3], purse, string.format('%.0f', 0 - made.nano)) <= 0 then
      redis.call('HDEL', KEYS[3], purse)
    end
  end
  for _, call in ipairs({made.endpoint, made.endpoint .. '\\n' .. made.model}) do
    if redis.call('HINCRBY', KEYS[7], call, -1) <= 0 then redis.call('HDEL', KEYS[7], call) end
  end
end
local function read(text)
  local made = cjson.decode(text)
  made.nano = tonumber(made.nano)
  return made
end
local function sweep()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', '(' .. now)) do
    local made = read(redis.call('HGET', KEYS[4], id))
    land(made)
    for _, purse in ipairs(made.purses) do spend(purse, made.nano) end
    redis.call('ZREM', KEYS[5], id)
    redis.call('ZADD', KEYS[6], now, id)
    redis.call('INCR', KEYS[8])
  end
end
"""
)
RESERVE = (
    _BOOKING
    + """
sweep()
local endpoint, model, bound = ARGV[2], ARGV[3], tonumber(ARGV[4])
local at_once = tonumber(redis.call('GET', KEYS[9]) or 1)
local known = redis.call('GET', KEYS[10])
local excess, least = 1, 0
if known then
  local e, l = string.match(known, '(%S+) (%S+)')
  excess, least = tonumber(e), tonumber(l)
end
local nano = math.max(math.ceil(bound * excess), least)
local function in_flight(call) return tonumber(redis.call('HGET', KEYS[7], call) or 0) end
local wait = in_flight(endpoint) >= at_once
wait = wait or (not known and in_flight(endpoint .. '\\n' .. model) > 0)
local purses = {}
for i = 6, #ARGV, 2 do
  local purse, limit = ARGV[i], tonumber(ARGV[i + 1])
  purses[#purses + 1] = purse
  if limit then
    local spent = tonumber(redis.call('HGET', KEYS[1], purse) or 0)
    local flying = tonumber(redis.call('HGET', KEYS[3], purse) or 0)
    if not (spent + nano <= limit) then
      return {'short', purse, string.format('%.0f', spent), string.format('%.0f', nano)}
    end
    wait = wait or (flying > 0 and not (spent + 2 * flying + nano <= limit))
  end
end
if wait then return {'wait'} end
for _, purse in ipairs(purses) do redis.call('HINCRBY', KEYS[3], purse, string.format('%.0f', nano)) end
redis.call('HINCRBY', KEYS[7], endpoint, 1)
redis.call('HINCRBY', KEYS[7], endpoint .. '\\n' .. model, 1)
local said = string.format('%.0f', nano)
local made = {purses = purses, endpoint = endpoint, model = model, nano = said}
redis.call('HSET', KEYS[4], ARGV[1], cjson.encode(made))
redis.call('ZADD', KEYS[5], now + tonumber(ARGV[5]), ARGV[1])
return {'made', said}
"""
)
SETTLE = (
    _BOOKING
    + """
local id, paid, answered, bound = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local text = redis.call('HGET', KEYS[4], id)
if id == '' then
  for i = 6, #ARGV do spend(ARGV[i], paid or 0) end
elseif text then
  local made = read(text)
  local nano = paid or made.nano
  local swept = redis.call('ZREM', KEYS[6], id) == 1
  if not swept then land(made) end
  for _, purse in ipairs(made.purses) do spend(purse, swept and nano - made.nano or nano) end
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZREM', KEYS[5], id)
  if answered or not paid or paid > made.nano then
    local at_once = tonumber(redis.call('GET', KEYS[9]) or 1)
    local excess, least = string.match(redis.call('GET', KEYS[10]) or '1 0', '(%S+) (%S+)')
    excess, least = tonumber(excess), tonumber(least)
    if paid and paid > 0 then least = least > 0 and math.min(least, paid) or paid end
    if not paid or paid <= made.nano then
      at_once = at_once + 1
    else
      at_once = paid <= 2 * made.nano and math.max(1, math.floor(at_once / 2)) or 1
      if bound > 0 then excess = math.max(excess, paid / bound) end
    end
    redis.call('SET', KEYS[9], string.format('%.0f', at_once), 'EX', ARGV[5])
    redis.call('SET', KEYS[10], string.format('%.17g %.0f', excess, least), 'EX', ARGV[5])
  end
end
redis.call('INCR', KEYS[8])
"""
)
RENEW_MONEY = (
    _NOW
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[i]) end
"""
)
COMMITTED = (
    _BOOKING
    + """
sweep()
return {redis.call('HGET', KEYS[1], ARGV[1]) or '0', redis.call('HGET', KEYS[3], ARGV[1]) or '0'}
"""
)
# What nobody has used for a month, and what was swept a day ago and has never settled.
PRUNE = (
    _NOW
    + """
for _, purse in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, 500)) do
  redis.call('HDEL', KEYS[1], purse)
  redis.call('ZREM', KEYS[2], purse)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, 500)) do
  redis.call('HDEL', KEYS[4], id)
  redis.call('ZREM', KEYS[6], id)
end
"""
)
