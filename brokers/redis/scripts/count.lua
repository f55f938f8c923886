-- Notes how many subscribers a node has on channels, or forgets a node.
-- KEYS: the log. ARGV: prefix, log, generation, node, then for each channel its name and the number; without any, all go.
-- Each channel has a hash of nodes. Each node has a set of its channels, so that they are found when it has ended.
local prefix, node = ARGV[1], ARGV[4]
-- A connection that is lost may still have a command on its way, which would undo a later one.
local g = redis.call('HGET', prefix .. 'b:' .. ARGV[2], 'g')
if g and g ~= ARGV[3] then return 'F' end
local own = prefix .. 'g:' .. node
if #ARGV == 4 then
	for _, channel in ipairs(redis.call('SMEMBERS', own)) do redis.call('HDEL', prefix .. 'n:' .. channel, node) end
	redis.call('DEL', own)
end
for i = 5, #ARGV, 2 do
	if ARGV[i + 1] == '0' then
		redis.call('HDEL', prefix .. 'n:' .. ARGV[i], node)
		redis.call('SREM', own, ARGV[i])
	else
		redis.call('HSET', prefix .. 'n:' .. ARGV[i], node, ARGV[i + 1])
		redis.call('SADD', own, ARGV[i])
		-- Nodes set their numbers again now and then. If all are killed at once nobody removes them.
		redis.call('PEXPIRE', prefix .. 'n:' .. ARGV[i], 7200000)
		redis.call('PEXPIRE', own, 86400000)
	end
end
return 'K'
