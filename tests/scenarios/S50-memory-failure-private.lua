-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S50", title = "Memory failure of a private page",
  source = "scenarios.md S50; background.md 0.3; guest_memfd.md 3.5 [MF]",
  hyps = "pkvm sw-protected",
  live = "no memory of the real machine is made to fail",
}

function play()
  local w = world { private = true }
  w.guest:write(3, "secret"):expect "0"

  say "The guest loses the page in stage 2; no process is told of what it cannot have; the file keeps it."
  local pfn = w.kern:memory_failure(3, 1):expect "0".pfn
  w.vmm:signals():has { signals = 0 }
  w.file:page(3):has { attr = PRIVATE, allocated = 1, pfn = pfn, ref = 2, map = 0 }
  w.guest:read(3):expect "EHWPOISON"

  say "It is the VMM's to decide. Converted to shared the page is as bad as before."
  w.vmm:convert(3, 1, SHARED):expect "0"
  w.vmm:touch(3):expect "SIGBUS"

  say "Back to private it does not go: the failure holds a reference."
  w.vmm:convert(3, 1, PRIVATE):expect "EAGAIN@3":holder "memory failure"
  w.vmm:punch(3):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.kern:unpoison(pfn):expect "0"
  w.file:page(3):has { attr = PRIVATE, allocated = 0 }
end
