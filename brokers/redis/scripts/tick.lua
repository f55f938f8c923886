-- Tells a session how far the log is, in the order of the entries.
-- KEYS: the log. ARGV: prefix, run, epoch, incarnation, log, nonce.
local m = redis.call('HMGET', KEYS[1], 'run', 'e', 'x', 's')
if m[1] ~= ARGV[2] or m[2] ~= ARGV[3] or m[3] ~= ARGV[4] then return 'F' end
-- A write that changes nothing: a replica refuses it, and its answer would be old.
redis.call('DEL', ARGV[1] .. '-')
local now = redis.call('TIME')
redis.call('PUBLISH', ARGV[1] .. 'o:' .. ARGV[5],
	ARGV[3] .. ' ' .. m[4] .. ' ' .. string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)) .. ' ' .. ARGV[6])
return 'K'
