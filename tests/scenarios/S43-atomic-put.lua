-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S43", title = "folio_put() in atomic context",
  source = "scenarios.md S43; background.md 2.4 [FUAD7]",
  policies = "C",
  live = "the daemon has no interrupts",
}

local function waiting(options)
  local w = world(options)
  w.vmm:write(3, "hello"):expect "0"
  local io = w.vmm:pin(3, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "NONE_SHARED"
  return w, io
end

function play()
  say "The I/O ends in an interrupt, which drops the last reference: the callback takes a lock that sleeps."
  local w, io = waiting { bugs = "atomic-put" }
  w.vmm:unpin_irq(io):expect "0":violates "sleeping function called from invalid context"

  say "From a process the same code is silent: that is why it was not seen at once."
  w, io = waiting { bugs = "atomic-put" }
  w.vmm:unpin(io):expect "0"
  w.file:page(3):has { none = 0, attr = PRIVATE }

  say "Repaired: the callback leaves the work to a workqueue, which may sleep."
  w, io = waiting {}
  w.vmm:unpin_irq(io):expect "0"
  w.file:page(3):has { none = 0, attr = PRIVATE, ref = 1 }
  w.guest:read(3):expect "0":reads "hello"
end
