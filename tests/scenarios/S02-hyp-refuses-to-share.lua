-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S2", title = "The hypervisor refuses to share",
  source = "scenarios.md S2; background.md 1.2, 1.4 [LIB2][GNY]",
  policies = "B",
  live = "the library was never merged: it exists in the model only",
}

function play()
  local w = world { library = true }

  say "Page 0 is the guest's: not in the kernel's direct map, and the guest has it locked at the hypervisor."
  w.vmm:write(0, "hello"):expect "0"
  w.file:make_inaccessible(0):expect "0"
  w.hyp:refuse("make_shared", 0):expect "0"
  local before = w.file:counts(0):has { inaccessible = 1, direct_map = 0, ref = 1 }
  w.kern:copy(0):expect "EFAULT"
  w.kern:load(0):expect "OOPS"

  say "The VMM touches it.  The library restores the direct map, asks, is refused, and takes it all back."
  w.vmm:touch(0):expect "SIGBUS"
  local after = w.file:counts(0):has { inaccessible = 1, direct_map = 0, ref = 1, accessible = 0 }
  equal(after.restores, before.restores + 1, "entries restored for the answer")
  equal(after.zaps, before.zaps + 1, "and zapped again")
  w.file:page(0):has { attr = PRIVATE, map = 0 }
  w.kern:load(0):expect "OOPS"

  say "The guest lets go of its lock."
  w.hyp:allow("make_shared", 0):expect "0"
  w.vmm:read(0):expect "0":reads "hello"
  w.file:counts(0):has { inaccessible = 0, direct_map = 1 }
  w.file:page(0):has { attr = SHARED, map = 1 }

  say "What the guest owns in stage 2 needs nobody's refusal by hand: the hypervisor itself says no."
  w.file:make_inaccessible(0):expect "0"
  w.guest:read(0):expect "0":reads "hello"
  w.vmm:touch(0):expect "SIGBUS"
  w.file:counts(0):has { inaccessible = 1, direct_map = 0 }
end
