-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S45", title = "Content modes of version 5",
  source = "scenarios.md S45; background.md 2.3; guest_memfd.md 6 [INPL][V6C]",
  hyps = "pkvm sw-protected firmware",
  live = true,
}

local NONE, ZERO, PRESERVE = 0, 1, 2
local page = 4096

-- What the VMM finds in page 3 after it went to private in one mode and came back in another.
local function there_and_back(to_private, to_shared)
  local w = world { abi = 5 }
  w.vmm:write(3, "hello"):expect "0"
  local there = w.vmm:convert_raw(3 * page, page, PRIVATE, to_private)
  if to_private == ZERO then
    there:expect "EOPNOTSUPP"
    return w
  end
  there:expect "0"
  w.vmm:touch(3):expect "SIGBUS"
  return w, w.vmm:convert_raw(3 * page, page, SHARED, to_shared)
end

function play()
  say "As merged there are no modes: each of them is EINVAL."
  local w = world {}
  for _, mode in ipairs { ZERO, PRESERVE, ZERO | PRESERVE } do
    w.vmm:convert_raw(3 * page, page, PRIVATE, mode):expect "EINVAL"
  end

  say "Version 5.  Two modes at once, or one that there is not."
  w = world { abi = 5 }
  w.vmm:convert_raw(3 * page, page, PRIVATE, ZERO | PRESERVE):expect "EINVAL"
  w.vmm:convert_raw(3 * page, page, PRIVATE, 4):expect "EINVAL"

  say "ZERO is for what becomes shared."
  there_and_back(ZERO, NONE)

  say "No mode is no promise: pKVM keeps the bytes, software scrambles them to show that, firmware cannot have them."
  local w, back = there_and_back(NONE, NONE)
  back:expect "0"
  local none = { pkvm = "hello", ["sw-protected"] = "\xab\xab\xab\xab", firmware = "" }
  w.vmm:read(3, 4):expect "0":reads(string.sub(none[hyp], 1, 4))

  say "PRESERVE there and back: not with keys that change, which cannot give the bytes back."
  w, back = there_and_back(PRESERVE, PRESERVE)
  back:expect { pkvm = "0", ["sw-protected"] = "0", firmware = "EOPNOTSUPP" }
  if hyp == "firmware" then
    w.file:page(3):has { attr = PRIVATE }
  else
    w.vmm:read(3):expect "0":reads "hello"
  end

  say "ZERO on the way back, and once more over what is shared already: it zeroes all the same."
  w, back = there_and_back(PRESERVE, ZERO)
  back:expect "0"
  w.vmm:read(3):expect "0":reads ""
  w.vmm:write(3, "again"):expect "0"
  w.vmm:convert_raw(3 * page, page, SHARED, ZERO):expect "0"
  w.vmm:read(3):expect "0":reads ""
end
