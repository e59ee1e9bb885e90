-- Whether Redis takes data that makes it grow: beyond `maxmemory` it refuses this script, which adds nothing.
-- ARGV: none
-- Returns: 1
-- Publishes: nothing
return 1
