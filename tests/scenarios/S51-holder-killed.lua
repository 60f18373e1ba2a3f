-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S51", title = "The holder of a pin crashes",
  source = "scenarios.md S51; background.md 0.3, 6.2 [XGUP]",
  live = true,
}

function play()
  local w = world {}
  w.vmm:write(4, "four"):expect "0"

  say "A helper of the VMM has a buffer registered for good, as an io_uring does, and does not answer."
  local helper = w:process "helper"
  helper:mmap(0, 16):expect "0"
  helper:pin(4, 1, "FOLL_LONGTERM", "io_uring buffer"):expect "0"
  for _ = 1, 3 do
    w.vmm:convert(4, 1, PRIVATE):expect "EAGAIN@4":holder "io_uring buffer"
    w:advance(10)
  end

  say "It is killed: the kernel drops what it held, and the VMM's next try goes through."
  helper:kill():expect "0"
  w.vmm:convert(4, 1, PRIVATE):expect "0"
  w.file:page(4):has { attr = PRIVATE, ref = 1, holders = 0 }
  w.guest:read(4, 5):expect "0":reads "four"
  if stage == "sim" then
    stuck()
  end
end

function stuck()
  say "A helper in D state does not die, and no retry helps: after its time the VMM tells the guest that it failed."
  local w = world {}
  w.guest:read(4, 5):expect "EXIT_MEMORY_FAULT"
  w.vmm:convert(4, 1, PRIVATE):expect "0"
  w.guest:resume():expect "0"
  w.guest:share(4):expect "EXIT_HYPERCALL"
  w.vmm:convert(4, 1, SHARED):expect "0"
  w.guest:resume():expect "0"
  local helper = w:process "helper"
  helper:mmap(0, 16):expect "0"
  helper:pin(4, 1, "FOLL_LONGTERM", "io_uring buffer"):expect "0"
  helper:d_state(1):expect "0"
  helper:kill():expect "EBUSY"
  w.guest:unshare(4):expect "EXIT_HYPERCALL"
  for _ = 1, 10 do
    w.vmm:convert(4, 1, PRIVATE):expect "EAGAIN@4":holder "io_uring buffer"
    w:advance(100)
  end
  w.guest:resume():expect "INVALID_PARAMETER"
  w.file:page(4):has { attr = SHARED }

  say "Its I/O ends at last, and so does it."
  helper:d_state(0):expect "0"
  w.vmm:convert(4, 1, PRIVATE):expect "0"
end
