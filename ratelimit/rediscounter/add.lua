-- Adds ARGV[2] unless the count is more than ARGV[3]; nothing if that is empty.
local n, room = ARGV[2], ARGV[3]
local count = redis.call('HGET', hash, window)
local ok = n == '0'
if not ok and room ~= '' and atmost(count or '0', room) then
	count = add(n, count)
	ok = true
end
touch()
return {count or '0', ok and 1 or 0}
