-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S44", title = "An exclusive pin, and the hole in it",
  source = "scenarios.md S44; background.md 6.2 [XGUP]",
  policies = "E",
  live = "the pins of real processes cannot be made to fail while an exclusive pin is held",
}

function play()
  local w = world { pages = 4 }

  say "Somebody has the page pinned: no exclusive pin, so no donation."
  w.vmm:write(2, "hello"):expect "0"
  local io = w.vmm:pin(2, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.vmm:convert(2, 1, PRIVATE):expect "EBUSY@2":holder "O_DIRECT read"
  w.vmm:unpin(io):expect "0"

  say "Pinned exclusively: the next pin fails, of whatever term."
  w.vmm:convert(2, 1, PRIVATE):expect "0"
  w.vmm:pin(2, 1, "FOLL_PIN", "O_DIRECT read"):expect "EBUSY"
  w.vmm:pin(2, 1, "FOLL_LONGTERM", "VFIO"):expect "EBUSY"

  say "FOLL_GET is no pin.  vmsplice gets the private page: the hole that ended the proposal."
  local pipe = w.vmm:pin(2, 1, "FOLL_GET", "vmsplice"):expect "0":violates "I1"
  w.file:page(2):has { attr = PRIVATE, holders = 2 }:violates "I1"
  w.vmm:unpin(pipe):expect "0"

  say "Page tables keep the page too; what keeps the VMM out is stage 2 alone, once the guest has it."
  w.guest:write(2, "secret"):expect "0"
  w.vmm:touch(2):expect "SIGSEGV"
  w.vmm:convert(2, 1, SHARED):expect "0"

  say "1024 plain references look like a pin: refused, though nobody pins."
  w.vmm:touch(1):expect "0"
  local gets = {}
  for i = 1, 1022 do
    gets[i] = w.vmm:pin(1, 1, "FOLL_GET", "vmsplice"):expect "0"
  end
  w.file:page(1):has { ref = 1024, map = 1 }
  w.vmm:convert(1, 1, PRIVATE):expect "EBUSY@1"
end
