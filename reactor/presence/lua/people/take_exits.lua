-- Departures from the rooms of a shard that the index of people has yet to take in, in pages. They stay until
-- `drop_exits`, so that nothing is lost when the caller dies.
-- ARGV: cursor ('0' first); count (departures a page, about)
-- Returns: {next cursor, {ROOM:user:USER, last activity and tokens, ...}}
-- Publishes: nothing
return call('HSCAN', exits_key(SHARD), ARGV[1], 'COUNT', ARGV[2])
