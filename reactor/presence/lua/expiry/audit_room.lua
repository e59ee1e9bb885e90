-- The sweep's audit of one large room, page by page.
-- ARGV: room; cursor ('0' first); count (rows a page, about)
-- Returns: {next cursor, {suffix of a member found gone, ...}}
-- Publishes: nothing
local page = call('ZSCAN', members_key(ARGV[1]), ARGV[2], 'COUNT', ARGV[3])
local gone = {}
collect_gone(ARGV[1], page[2], 2, gone)
return { page[1], gone }
