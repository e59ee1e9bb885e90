-- The log of changes for webhooks.

-- Appends entries of the log to a reply: id, room (escaped) and diff of each.
local function append_changes(reply, entries)
  for _, entry in ipairs(entries) do
    reply[#reply + 1] = entry[1]
    reply[#reply + 1] = entry[2][2]
    reply[#reply + 1] = entry[2][4] or '' -- another program may have written an entry with one field
  end
end
