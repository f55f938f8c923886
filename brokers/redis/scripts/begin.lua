-- Begins a session: settles on the epoch, and makes this session the only one of its log that may publish.
-- KEYS: the log. ARGV: prefix, run, candidate for an epoch, durable, limit, ttl, whether these two are wanted exactly,
-- log, generation, the epoch and the position that the log knows.
local m = redis.call('HMGET', KEYS[1], 'run', 'e', 'x', 's', 'l', 'ttl', 'since')
local run, epoch, incarnation, s = ARGV[2], m[2], m[3], m[4]
local limit, ttl, since = tonumber(m[5]), tonumber(m[6]), m[7]
if not (m[1] and epoch and incarnation and s) then
	-- It is empty, or was flushed or evicted: positions begin again. Streams and keys of before may be left, so the new ones
	-- have other names.
	epoch, incarnation, s, limit, since = ARGV[3], ARGV[3], '0', nil, '0'
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], 'run', run, 'e', epoch, 'x', incarnation, 's', s)
elseif m[1] ~= run then
	-- Another server, or the same one restarted. What it has lost is not known, so its positions are of another epoch.
	if ARGV[4] ~= '1' then epoch = ARGV[3] end
	redis.call('HSET', KEYS[1], 'run', run, 'e', epoch)
end
if epoch == ARGV[10] and tonumber(s) < tonumber(ARGV[11]) then
	-- The server has lost what it had promised to keep. Its positions would be given a second time.
	epoch = ARGV[3]
	redis.call('HSET', KEYS[1], 'e', epoch)
end
local l, t = tonumber(ARGV[5]), tonumber(ARGV[6])
local function longer(a, b) return b ~= 0 and (a == 0 or a > b) end -- 0 is no limit
if limit and ARGV[7] ~= '1' then
	l = math.max(l, limit)
	if longer(ttl, t) then t = ttl end
end
if not limit or l ~= limit or t ~= ttl then
	-- What was removed under a lower limit is gone, so a higher one counts only for positions from now on.
	if limit and (l > limit or longer(t, ttl)) then since = s end
	redis.call('HSET', KEYS[1], 'l', l, 'ttl', t, 'since', since)
end
local own = ARGV[1] .. 'b:' .. ARGV[8]
redis.call('HSET', own, 'g', ARGV[9])
redis.call('PEXPIRE', own, 86400000)
local now = redis.call('TIME')
return {epoch, incarnation, s, now[1] * 1000 + math.floor(now[2] / 1000)}
