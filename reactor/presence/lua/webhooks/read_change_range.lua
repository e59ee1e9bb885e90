-- The shard's changes between two entries, both included, and how far an endpoint has confirmed: what a request is made
-- of that another sender began.
-- ARGV: endpoint; first (id of an entry); last (id of an entry)
-- Returns: {place (how many entries the endpoint has received, counted from the log's beginning), then for each entry:
--          id, room (escaped), diff}
-- Publishes: nothing
local place = string.match(call('HGET', SHARD .. ':places', ARGV[1]) or '', ' (%d+)$')
local reply = { tonumber(place) or 0 }
append_changes(reply, call('XRANGE', CHANGES, ARGV[2], ARGV[3]))
return reply
