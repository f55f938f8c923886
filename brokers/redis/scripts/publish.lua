-- Stores entries of several calls, each call as a whole or not at all, and publishes them.
-- KEYS: the log. ARGV: prefix, run, epoch, incarnation, log, generation, number of the batch, and then for each call how many
-- entries it has, and for each entry its channel, message, key or '', and digest.
-- The names of streams are made here, and only given as KEYS too to a cluster, which then does not begin what it cannot end
-- while it moves the keys to another server. All have one hash tag, and it is a third of what is sent.
-- A reply begins with F: another run or epoch; S: another session; U: an error in the middle; or K, the time, and for each
-- entry its position, or r<position>:<time> if the key was known, or c if the call has a conflict.
local log, prefix, epoch = KEYS[1], ARGV[1], ARGV[3]
local m = redis.call('HMGET', log, 'run', 'e', 'x', 's', 'l', 'ttl', 'tb')
if m[1] ~= ARGV[2] or m[2] ~= epoch or m[3] ~= ARGV[4] then return 'F' end
local own = prefix .. 'b:' .. ARGV[5]
local last = redis.call('HMGET', own, 'g', 'n')
if last[1] and last[1] ~= ARGV[6] then return 'S' end
if last[2] == ARGV[7] then
	redis.call('PEXPIRE', own, 86400000) -- a write, so that WAIT waits for it
	return redis.call('HGET', own, 'r')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first, limit, ttl = tonumber(m[4]), m[5], tonumber(m[6])
local streams, keys = prefix .. 'h:' .. m[3] .. ':', prefix .. 'k:' .. m[3] .. ':'
local out, fresh, known = {'K', now}, {}, {}
local i, n = 8, #ARGV
while i <= n do
	local count, from, before, conflict, added = tonumber(ARGV[i]), #out, #fresh, false, {}
	i = i + 1
	for j = i, i + 4 * count - 4, 4 do
		local key, answer = ARGV[j + 2], nil
		if key ~= '' then
			local k = known[key]
			if not k then
				local stored = redis.call('GET', keys .. key)
				if stored then
					local seq, at, digest = string.match(stored, '^(%d+) (%d+) (%d+)$')
					if seq then k = {'r' .. seq .. ':' .. at, digest} end
					known[key] = k
				end
			end
			if k then
				answer = k[1]
				if k[2] ~= ARGV[j + 3] then conflict = true end
			end
		end
		if not answer then
			fresh[#fresh + 1] = j
			answer = string.format('%.0f', first + #fresh)
			if key ~= '' then
				known[key] = {'r' .. answer .. ':' .. now, ARGV[j + 3]}
				added[#added + 1] = key
			end
		end
		out[#out + 1] = answer
	end
	if conflict then
		for j = from + 1, #out do out[j] = 'c' end
		for j = #fresh, before + 1, -1 do fresh[j] = nil end
		for _, key in ipairs(added) do known[key] = nil end
	end
	i = i + 4 * count
end
local reply = table.concat(out, ' ')
local total = #fresh
if total == 0 then return reply end
-- The first write: if the server refuses it, nothing was stored. Positions are taken before anything is stored at them.
redis.call('HINCRBY', log, 's', total)
local width = math.ceil(math.max(10000, ttl / 1000))
if ttl > 0 then
	local bucket = math.floor(now / width)
	if tostring(bucket) ~= m[7] then
		if m[7] and bucket < tonumber(m[7]) then
			-- The clock went back, so what is noted of times does not tell any more which streams have expired.
			redis.call('DEL', prefix .. 't:' .. m[3])
			redis.call('HSET', log, 'since', m[4])
		end
		redis.call('HSET', log, 'tb', bucket)
		redis.pcall('XADD', prefix .. 't:' .. m[3], 'MAXLEN', '~', 1200, now .. '-0', 's', m[4])
		redis.call('PEXPIRE', own, 86400000)
	end
end
local expired = {}
local ok, err = pcall(function()
	for k = 1, total do
		local j = fresh[k]
		local channel, data, key = ARGV[j], ARGV[j + 1], ARGV[j + 2]
		local seq = string.format('%.0f', first + k)
		local stream = streams .. channel
		local stored = redis.pcall('XADD', stream, 'MAXLEN', '~', limit, seq .. '-' .. now, 'd', data)
		if type(stored) == 'table' and stored.err then
			-- It is no stream, or one that is ahead: nobody who follows the rules has made it.
			redis.call('DEL', stream)
			redis.call('XADD', stream, seq .. '-' .. now, 'd', data)
		end
		if not expired[channel] then
			expired[channel] = true
			-- The stream may be from when there was a limit. A bit longer, for a clock that goes back a bit.
			if ttl > 0 then redis.call('PEXPIRE', stream, ttl + width) else redis.call('PERSIST', stream) end
		end
		if key ~= '' then redis.call('SET', keys .. key, seq .. ' ' .. now .. ' ' .. ARGV[j + 3], 'PX', 120000) end
		redis.call('PUBLISH', prefix .. 'c:' .. channel, epoch .. ' ' .. seq .. ' ' .. now .. ' ' .. data)
	end
end)
if not ok then return 'U ' .. (type(err) == 'table' and err.err or tostring(err)) end
redis.call('HSET', own, 'g', ARGV[6], 'n', ARGV[7], 'r', reply)
if not last[1] then redis.call('PEXPIRE', own, 86400000) end -- it was away for a day
return reply
