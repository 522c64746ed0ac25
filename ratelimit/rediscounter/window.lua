-- What the scripts have in common. KEYS[1] is the hash of a quota, ARGV[1] names a
-- window of it. The hash has a field for each window, its count, and another for
-- the window's accounts; "windows" lists the windows as they were made.
local hash, window = KEYS[1], ARGV[1]

-- Numbers of Lua are exact up to 2^53, counts up to 2^63. So a count stays a
-- string of digits: HINCRBY adds to it, and it is compared and subtracted here.

local function atmost(a, b)
	return #a < #b or #a == #b and a <= b
end

-- minus returns a - b, exactly if that is below 10^15.
local function minus(a, b)
	local high = (tonumber(string.sub(a, 1, -16)) or 0) - (tonumber(string.sub(b, 1, -16)) or 0)
	return high * 1e15 + (tonumber(string.sub(a, -15)) - tonumber(string.sub(b, -15)))
end

local function digits(n)
	return string.format('%.0f', n)
end

-- add adds n, digits, to the count of the window, which is made if it was not
-- there before: then the first of nine windows goes.
local function add(n, made)
	local count = redis.call('HINCRBY', hash, window, n)
	if not made then
		local all = {}
		for w in string.gmatch(redis.call('HGET', hash, 'windows') or '', '%S+') do
			all[#all + 1] = w
		end
		all[#all + 1] = window
		while #all > 8 do
			redis.call('HDEL', hash, all[1], all[1] .. ' accounts')
			table.remove(all, 1)
		end
		redis.call('HSET', hash, 'windows', table.concat(all, ' '))
	end
	if count < 2^53 then
		return digits(count)
	end
	return redis.call('HGET', hash, window)
end

-- touch has the hash expire three days later. It writes once in a while and not at
-- every touch; what was touched is kept for 50 hours all the same.
local function touch()
	local left = redis.call('PTTL', hash)
	if left ~= -2 and left < 180000000 then
		redis.call('PEXPIRE', hash, 259200000)
	end
end
