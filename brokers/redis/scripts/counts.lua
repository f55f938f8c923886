-- Returns how many subscribers all nodes have on channels: for each, a list of nodes and numbers.
-- KEYS: the log. ARGV: prefix, then the channels.
local reply = {}
for i = 2, #ARGV do reply[i - 1] = redis.call('HGETALL', ARGV[1] .. 'n:' .. ARGV[i]) end
return reply
