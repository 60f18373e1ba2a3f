-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S1", title = "The library's counters, step by step",
  source = "scenarios.md S1; background.md 1.2 [LIB2]",
  policies = "B",
  live = "the library was never merged: it exists in the model only",
}

-- The RFC counts one safe reference more, the caller's own lookup; here that one exists only while somebody looks.
function play()
  local w = world { library = true, flags = 1 }

  say "Whoever wants the host to see a page grabs it accessible: the library vouches for that reference."
  w.file:grab(0, 1):expect "0"
  w.file:counts(0):has { accessible = 1, safe = 2, ref = 2, inaccessible = 0, direct_map = 1 }

  say "The VMM faults the page in.  The library gives back what it counted for the fault: the PTE is an unsafe reference."
  w.vmm:touch(0):expect "0"
  w.file:counts(0):has { accessible = 1, safe = 2, ref = 3 }

  say "Nobody wants it accessible any more: unmapped, all references are safe, the hypervisor prepares, success."
  w.file:make_inaccessible(0):expect "0"
  w.file:counts(0):has { accessible = 0, safe = 2, ref = 2, inaccessible = 1, direct_map = 0 }
  w.file:make_inaccessible(0):expect "0"

  say "The same with a reference of vmsplice's: 10 ms of waiting, then EBUSY, and everything is as it was."
  w.file:grab(1, 1):expect "0"
  w.vmm:touch(1):expect "0"
  local get = w.vmm:pin(1, 1, "FOLL_GET", "vmsplice"):expect "0"
  local zaps = w.file:counts(1):has { accessible = 1, safe = 2, ref = 4 }.zaps
  w.file:make_inaccessible(1):expect "EBUSY"
  local after = w.file:counts(1):has { accessible = 1, safe = 2, inaccessible = 0, direct_map = 1 }.zaps
  equal(after, zaps, "direct-map entries zapped: the hypervisor was not even asked")
  w.vmm:unpin(get):expect "0"
  w.file:make_inaccessible(1):expect "0"
end
