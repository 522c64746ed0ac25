-- Lends to account ARGV[2], which has spent ARGV[3], up to ARGV[4] in all or what
-- the limit ARGV[5] leaves of a loan of ARGV[6]; an ARGV[4] of 0 gives back. It is
-- ARGV[7] o'clock, and a loan lasts for ARGV[8].
local name, spent, want, limit, size = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local now, duration = tonumber(ARGV[7]), tonumber(ARGV[8])

local made, packed = unpack(redis.call('HMGET', hash, window, window .. ' accounts'))
local count = made or '0'
if not made and (want == 0 or limit == '0') then
	touch()
	return {ARGV[3], 0, count, 0}
end

-- An account has spent a[1], holds a[2], is live until a[3], and has ended if a[4].
local accounts = packed and cmsgpack.unpack(packed) or {}
local a = accounts[name] or {spent, 0, now, false}
if spent > a[1] then
	a[2] = math.max(a[2] - (spent - a[1]), 0)
	a[1] = spent
end
a[3] = now + duration
accounts[name] = a

local others, nodes, debts = 0, 1, {}
for other, o in pairs(accounts) do
	if other ~= name then
		others = others + o[2]
		if o[3] <= now then
			if o[2] == 0 then
				accounts[other] = nil
			else
				debts[#debts + 1] = other
			end
		elseif o[2] > 0 then
			nodes = nodes + 1
		end
	end
end
table.sort(debts, function(x, y) return accounts[x][3] > accounts[y][3] end)
for i = 101, #debts do
	accounts[debts[i]] = nil
end

local n = 0
if want == 0 then
	n, a[4] = -a[2], true
elseif not a[4] then
	local left = minus(limit, count)
	local loan = 0
	if left > 0 then
		loan = math.max(math.min(size, math.floor(left / (2 * nodes))), 1)
	end
	n = math.max(math.min(want, loan) - a[2], 0)
end
a[2] = a[2] + n
-- A command that a user has no right to ends the script, and does not undo those
-- before it. Then units must be in the count that no account has, not the reverse.
if n > 0 then
	count = add(digits(n), made)
end
redis.call('HSET', hash, window .. ' accounts', cmsgpack.pack(accounts))
if n < 0 then
	count = add(digits(n), made)
end
touch()
return {digits(a[1]), a[2], count, others}
