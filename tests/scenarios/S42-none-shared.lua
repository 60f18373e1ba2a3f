-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S42", title = "NONE_SHARED",
  source = "scenarios.md S42; background.md 2.4 [FUAD7]",
  policies = "C", hyps = "pkvm sw-protected",
  live = "a reference that real processes hold has no folio_put callback to hang on",
}

function play()
  local w = world {}

  say "The guest takes page 3 back while a disk writes into it: it is nobody's."
  w.vmm:write(3, "hello"):expect "0"
  local io = w.vmm:pin(3, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "NONE_SHARED":holder "O_DIRECT read"
  w.file:page(3):has { none = 1, attr = PRIVATE, ref = 1024, map = 0 }
  w.guest:read(3):expect "EXIT_MEMORY_FAULT"
  w.vmm:touch(3):expect "SIGBUS"
  w.file:register(3):expect "0"

  say "The guest changes its mind: the callback is cancelled, the page shared as before."
  w.vmm:convert(3, 1, SHARED):expect "0"
  w.file:page(3):has { none = 0, attr = SHARED, ref = 1 + 1024 }
  w.vmm:read(3):expect "0":reads "hello"
  w.vmm:unpin(io):expect "0"
  w.file:page(3):has { none = 0, attr = SHARED, ref = 2, map = 1 }

  say "A mapped page has no room for a page type: mapcount and type are one field."
  w.file:register(3):expect "EAGAIN"

  say "Once more, and the last reference goes: nobody tries again, the callback makes the page the guest's."
  io = w.vmm:pin(3, 1, "FOLL_GET", "vmsplice"):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "NONE_SHARED"
  w.file:page(3):has { none = 1, ref = 1 }
  w.vmm:unpin(io):expect "0"
  w.file:page(3):has { none = 0, attr = PRIVATE, ref = 1 }
  w.guest:resume():expect "0":reads "hello"
  w.vmm:touch(3):expect "SIGBUS"
end
