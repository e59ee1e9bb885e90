-- The format of the namespace. Nothing is written.
-- KEYS: fleet prefix
-- ARGV: none
-- Returns: {number, shards}, or {} where the namespace has none
-- Publishes: nothing
local number, shards = read_format()
return number and { number, shards } or {}
