-- Reads channels.
-- KEYS: the log. ARGV: prefix, run, epoch, incarnation, bytes, entries, direction (+ or -), whether the server evicts keys, then
-- for each channel its name, the position after which, and the next one.
-- The reply is F, or an array: for each channel, while bytes and entries last, whether all of it was read, whether nothing is
-- missing, and a list of IDs and messages.
local prefix, log = ARGV[1], KEYS[1]
local m = redis.call('HMGET', log, 'run', 'e', 'x', 's', 'l', 'ttl', 'since', 'evicted')
if m[1] ~= ARGV[2] or m[2] ~= ARGV[3] or m[3] ~= ARGV[4] then return 'F' end
redis.call('DEL', prefix .. '-') -- as in tick.lua
local s, limit, ttl, since = tonumber(m[4]), tonumber(m[5]), tonumber(m[6]), tonumber(m[7])
local room, left, reply = tonumber(ARGV[5]), tonumber(ARGV[6]), {}
local kept -- every entry after this position is younger than the lifetime of a stream
local function young(after)
	if ttl == 0 then return true end
	if not kept then
		local now = redis.call('TIME')
		local first = redis.call('XRANGE', prefix .. 't:' .. m[3], string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) - ttl), '+', 'COUNT', 1)[1]
		kept = first and tonumber(first[2][2]) or s
	end
	return after >= kept
end
local looked = ARGV[8] ~= '1'
local function unevicted(after)
	if not looked then
		looked = true
		local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
		if evicted and evicted ~= (m[8] or '0') then
			-- Any stream may be gone, so from here on only positions that come now are known to have nothing before them.
			since = s
			redis.call('HSET', log, 'evicted', evicted, 'since', m[4])
		end
	end
	return after >= since
end
-- How many entries are fetched at once. Those that have no room are fetched in vain, so first it is a few, and then as many as
-- there should be room for.
local ask, count, bytes = 4, 0, 0
for i = 9, #ARGV, 3 do
	local stream, after, from = prefix .. 'h:' .. m[3] .. ':' .. ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
	local list, all = {}, true
	if ARGV[7] == '-' then from = '+' end
	while all do
		-- One more than wanted, which shows whether there are more.
		if count > 0 then ask = math.min(100, math.floor(room / (bytes / count + 1)) + 1) end
		ask = math.max(1, math.min(left + 1, ask))
		local part
		if ARGV[7] == '+' then part = redis.call('XRANGE', stream, from, '+', 'COUNT', ask)
		else part = redis.call('XREVRANGE', stream, from, '-', 'COUNT', ask) end
		for _, e in ipairs(part) do
			local data = e[2][2]
			-- The first of all comes whatever its size, or a reader with little room would never get on.
			if left <= 0 or room < #data and (#list > 0 or #reply > 0) then all = false break end
			left, room, count, bytes = left - 1, room - #data, count + 1, bytes + #data
			list[#list + 1] = e[1]
			list[#list + 1] = data
			from = '(' .. e[1]
		end
		if #part < ask then break end
	end
	local complete = after >= s
	if not complete then
		complete = #redis.call('XREVRANGE', stream, ARGV[i + 1], '-', 'COUNT', 1) > 0
			or unevicted(after) and redis.call('XLEN', stream) < limit and young(after)
	end
	reply[#reply + 1] = {all and 1 or 0, complete and 1 or 0, list}
	if not all then break end
end
return reply
