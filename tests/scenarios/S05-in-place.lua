-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S5", title = "Happy path, in place",
  source = "scenarios.md S5; background.md 0.2, 2.4 [INPL]",
  policies = "D",
  live = true,
}

function play()
  local w = world {}

  say "The VMM loads a page, and gives it to the guest: same frame, same offset, same bytes."
  w.vmm:write(3, "hello"):expect "0"
  local pfn = w.file:page(3):has { attr = SHARED, ref = 2, map = 1 }.pfn
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.guest:read(3):expect "0":reads "hello"
  equal(w.file:page(3):has { attr = PRIVATE }.pfn, pfn, "the page's frame")
  w.vmm:touch(3):expect "SIGBUS"

  say "The guest gives it back with what it has written."
  w.guest:write(3, "secret"):expect "0"
  w.vmm:touch(3):expect "SIGBUS"
  w.guest:share(3):expect "EXIT_HYPERCALL"
  w.vmm:convert(3, 1, SHARED):expect "0"
  w.guest:resume():expect "0"
  w.vmm:read(3):expect "0":reads "secret"
  equal(w.file:page(3):has { attr = SHARED, map = 1 }.pfn, pfn, "the page's frame")
end
