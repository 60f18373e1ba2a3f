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
  -- With real processes the kernel keeps the PTEs, and the model learns of the page when it is converted.
  local before = w.file:page(3):has { attr = SHARED, ref = { sim = 2 }, map = { sim = 1 } }
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  local pfn = w.file:page(3):has { attr = PRIVATE, ref = 1, map = 0 }.pfn
  check(stage == "live" or pfn == before.pfn, "the page has another frame")
  w.guest:read(3):expect "0":reads "hello"
  w.vmm:touch(3):expect "SIGBUS"

  say "The guest gives it back with what it has written."
  w.guest:write(3, "secret"):expect "0"
  w.vmm:touch(3):expect "SIGBUS"
  w.guest:share(3):expect "EXIT_HYPERCALL"
  w.vmm:convert(3, 1, SHARED):expect "0"
  w.guest:resume():expect "0"
  w.vmm:read(3):expect "0":reads "secret"
  equal(w.file:page(3):has { attr = SHARED, map = { sim = 1 } }.pfn, pfn, "the page's frame")
end
