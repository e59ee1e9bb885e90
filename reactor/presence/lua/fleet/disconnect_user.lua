-- Asks every node to remove a user from the rooms in which the user has a connection to it.
-- KEYS: fleet prefix
-- ARGV: request (JSON: user id, message)
-- Returns: how many nodes received it
-- Publishes: the request, behind a minus sign
return redis.call(PUBLISH, CHANNELS .. ':wake', DISCONNECT_MARK .. ARGV[1])
