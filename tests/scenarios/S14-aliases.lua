-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S14", title = "Aliases: a second view, mremap, a second process",
  source = "scenarios.md S14; background.md 2.5 [INPL]",
  live = true,
}

-- The variant of the Gunyah driver, which refuses to lend where a VMM merely has a view, belongs to that hypervisor.
function play()
  local w = world {}
  w.vmm:write(3, "three"):expect "0"

  say "Page 3 at four addresses: two views of the VMM, of which one has moved, a VMM of its own, and its child."
  local moved = w.vmm:mmap(0, 8):expect "0"
  w.vmm:read(3, 6, moved):expect "0":reads "three"
  local new = w.vmm:mremap(moved):expect "0"
  w.vmm:read(3, 6, new):expect "0":reads "three"
  w.vmm:touch(3, "r", moved):expect "SIGSEGV"
  local second = w:process "vmm2"
  second:mmap(0, 16):expect "0"
  second:read(3, 6):expect "0":reads "three"
  local child = second:fork "child"
  child:read(3, 6):expect "0":reads "three"
  w.file:page(3):has { attr = SHARED, map = { sim = 4 } }

  say "One conversion, and it is gone from all of them; the neighbour is not."
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.file:page(3):has { attr = PRIVATE, map = 0 }
  w.vmm:touch(3):expect "SIGBUS"
  w.vmm:touch(3, "r", new):expect "SIGBUS"
  second:touch(3, "w"):expect "SIGBUS"
  child:touch(3):expect "SIGBUS"
  w.vmm:touch(2, "r", new):expect "0"
  second:touch(2):expect "0"
  child:touch(2):expect "0"

  say "Who comes later may map, and may not touch."
  local third = w:process "vmm3"
  local view = third:mmap(0, 16):expect "0"
  third:touch(3, "r", view):expect "SIGBUS"
  third:touch(2, "r", view):expect "0"

  say "The guest gives the page back: every address shows the same bytes again."
  w.guest:write(3, "secret"):expect "0"
  w:follow(1)
  w.guest:share(3):expect "0"
  w.vmm:read(3, 7):expect "0":reads "secret"
  w.vmm:read(3, 7, new):expect "0":reads "secret"
  second:read(3, 7):expect "0":reads "secret"
  child:read(3, 7):expect "0":reads "secret"
  third:read(3, 7):expect "0":reads "secret"
  w.file:page(3):has { attr = SHARED, map = { sim = 5 } }
end
