-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S4", title = "The order of a teardown",
  source = "scenarios.md S4; background.md 1.2 [LIB4][LIB5]",
  live = "whoever has passed the descriptor on knows of the last close, not the daemon",
}

local function guest_owns_four(options)
  local w = world(options)
  w.vmm:convert(0, 4, PRIVATE):expect "0"
  for p = 0, 3 do
    w.guest:write(p, "secret " .. p):expect "0"
  end
  return w
end

function play()
  say "The right order: invalidate, truncate, release each page, detach.  What is free is the host's, and zeroed."
  local w = guest_owns_four {}
  w.file:close():expect "0"
  w.file:ranges():has { allocated = 0 }
  w.guest:read(0):expect "EXIT_MMIO"
  for p = 8, 11 do
    w.vmm:read(p):expect "0":reads ""
  end

  say "Detached first, and the page cache emptied after it: free_folio() reaches nobody."
  w = guest_owns_four { bugs = "detach-before-truncate" }
  w.file:close():expect "0":violates "I3"
  w.file:ranges():has { allocated = 0 }:violates "I3"

  say "The allocator hands the guest's frames out again, and their next owner faults."
  w.vmm:touch(8):expect "SIGSEGV":violates "I3":violates "stage 2 refuses the host"
end
