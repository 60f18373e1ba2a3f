-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S5", title = "Happy path, in place",
  source = "scenarios.md S5; background.md 0.2, 2.4 [INPL]",
  policies = "D",
  live = true,
}

function in_place()
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

-- What it was before files could be mapped: a guest_memfd for private pages, and another memory for what is shared.
function two_backings()
  say "The contrast: private memory in a file that cannot be mapped, shared memory in another, as a bounce buffer at gfn 16."
  local w = world { flags = 0, follow = true }
  local buffer = w.vm:create(16)
  w.vm:slot(1, 16, 16, 0, 4, buffer):expect "0"
  local view = w.vmm:mmap(0, 16, buffer):expect "0"
  w.guest:write(16 + 3, "bounce"):expect "0"
  w.guest:share(16 + 3):expect "0"
  local copies = 0
  local function copy(from, to, text)
    w.guest:read(from):expect "0":reads(text)
    w.guest:write(to, text):expect "0"
    copies = copies + 1
  end

  w.vmm:write(3, "hello", view):expect "0"
  copy(16 + 3, 3, "hello")
  w.guest:write(3, "secret"):expect "0"
  copy(3, 16 + 3, "secret")
  w.vmm:read(3, 7, view):expect "0":reads "secret"

  equal(copies, 2, "copies for the way there and back; in place it was none")
  local pages = w.file:page(3).allocated + buffer:page(3).allocated
  equal(pages, 2, "pages that hold it; in place it was one")
  w.file:page(3):has { attr = PRIVATE }
  buffer:page(3):has { attr = SHARED }
end

function play()
  in_place()
  if stage == "sim" then
    two_backings()
  end
end
