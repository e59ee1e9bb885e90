-- Several members in one call.

-- What `work` returns for one of them. An error is returned as its reply: what was damaged externally fails no other.
local function attempt(work, ...)
  local succeeded, reply = pcall(work, ...)
  if succeeded or type(reply) == 'table' then return reply end
  return { err = 'ERR ' .. tostring(reply) }
end
