-- JSON Merge Patch (RFC 7396) on the text of a member's data. cjson would change what the client stored: it makes an
-- object of an empty list, rounds numbers beyond 2^53 and loses the order of fields. Here every value that the patch
-- does not name keeps its bytes.

-- The text with another sign in the place of each bracket, quote and escape inside a text in it, at the same
-- positions: so string.find can skip a value with %b, which is a hundred times as fast as a loop.
local function json_mask(json)
  local mask = string.gsub(json, '\\.', '__')
  return (
    string.gsub(mask, '"[^"]*"', function(text)
      if string.find(text, '[%[%]{}]') then return (string.gsub(text, '[%[%]{}]', '_')) end
    end)
  )
end

-- Where the value ends that begins at `from`.
local function json_value_end(mask, from)
  local first = string.sub(mask, from, from)
  if first == '"' then return string.find(mask, '"', from + 1, true) end
  if first == '{' then return select(2, string.find(mask, '^%b{}', from)) end
  if first == '[' then return select(2, string.find(mask, '^%b[]', from)) end
  return select(2, string.find(mask, '^[^%s,%]}]+', from))
end

-- The names of an object's fields, quoted and in order; the values by name, and the masks of those that are objects.
local function json_fields(json, mask)
  local names, values, masks = {}, {}, {}
  local at = select(2, string.find(json, '^%s*{%s*')) + 1
  while string.sub(json, at, at) == '"' do
    -- Most fields are a number or a word, or a text without an escape: one match instead of ten calls.
    local name, value, following = string.match(json, '^("[^"\\]*"):([%w%.+-]+),?()', at)
    if not name then name, value, following = string.match(json, '^("[^"\\]*"):("[^"\\]*"),?()', at) end
    local inner
    if not name then
      local name_end = string.find(mask, '"', at + 1, true)
      local value_start = select(2, string.find(json, '^%s*:%s*', name_end + 1)) + 1
      local value_end = json_value_end(mask, value_start)
      name, value = string.sub(json, at, name_end), string.sub(json, value_start, value_end)
      if string.sub(value, 1, 1) == '{' then inner = string.sub(mask, value_start, value_end) end
      following = select(2, string.find(json, '^%s*,?%s*', value_end + 1)) + 1
    end
    if not values[name] then names[#names + 1] = name end
    values[name], masks[name], at = value, inner, following
  end
  return names, values, masks
end

-- `merge_patch` with the masks of both, of those that are objects.
local function merge_masked(target, target_mask, patch, patch_mask)
  local is_object = target and string.find(target, '^%s*{')
  local names, values, masks = json_fields(is_object and target or '{}', is_object and target_mask or '{}')
  local changed, changes, change_masks = json_fields(patch, patch_mask)
  for _, name in ipairs(changed) do
    local change = changes[name]
    if change == 'null' then
      values[name] = nil
    else
      if not values[name] then names[#names + 1] = name end
      local inner = change_masks[name]
      values[name] = inner and merge_masked(values[name], masks[name], change, inner) or change
    end
  end
  local parts = {}
  for _, name in ipairs(names) do
    local value = values[name]
    if value then
      local n = #parts
      parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = n > 0 and ',' or '{', name, ':', value
    end
  end
  parts[#parts + 1] = #parts > 0 and '}' or '{}'
  return table.concat(parts)
end

-- The target as the patch changes it. Anything but an object in the place of either is replaced.
local function merge_patch(target, patch)
  if not string.find(patch, '^%s*{') then return patch end
  return merge_masked(target, target and json_mask(target), patch, json_mask(patch))
end
