-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S13", title = "SIGBUS, and a forked child",
  source = "scenarios.md S13; guest_memfd.md 1.3 [KSELF]",
  live = true,
}

function play()
  local w = world {}

  say "The VMM forks: parent and child have the same pages mapped."
  w.vmm:write(2, "two"):expect "0"
  w.vmm:write(3, "before"):expect "0"
  local child = w.vmm:fork "child"
  child:read(2):expect "0":reads "two"
  child:read(3):expect "0":reads "before"
  w.file:page(3):has { attr = SHARED, map = { sim = 2 } }

  say "One of them becomes private: it is gone from both, and its neighbour from neither."
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.file:page(3):has { attr = PRIVATE, map = 0 }
  for _, p in ipairs { w.vmm, child } do
    p:touch(3):expect "SIGBUS"
    p:touch(3, "w"):expect "SIGBUS"
    p:read(2):expect "0":reads "two"
  end

  say "The guest gives it back: both read what it has written."
  w.guest:write(3, "after"):expect "0"
  w.guest:share(3):expect "EXIT_HYPERCALL"
  w.vmm:convert(3, 1, SHARED):expect "0"
  w.guest:resume():expect "0"
  for _, p in ipairs { child, w.vmm } do
    p:read(3):expect "0":reads "after"
    p:read(2):expect "0":reads "two"
  end
  child:exit():expect "0"
  w.vmm:read(3):expect "0":reads "after"
end
