-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S12", title = "A fault in flight",
  source = "scenarios.md S12; background.md 2.5; guest_memfd.md 3.3 [INPL]",
  policies = "A D",
  live = "a fault of a real process stops for nobody between its lookup and its PTE",
}

-- All orders of the steps of both.
local function every_order()
  explore {
    name = "a fault against a conversion",
    setup = function()
      local w = world {}
      w.vmm:fallocate(1, 9 * 4096, 4096):expect "0"
      return { fault = w.vmm:start("touch", 9, "w"), convert = w.vmm:start("convert", 9, 1, PRIVATE) }
    end,
    ends = function(e)
      check(e.convert == "0" or e.convert == "EAGAIN@9" and e.fault == "0", e.state)
    end,
    violates = { A = "I1" },
  }
end

function play()
  every_order()
  say "A fault has its folio; it has dropped the file's lock and not set the PTE yet. Only its reference tells."
  local w = world {}
  w.vmm:fallocate(1, 9 * 4096, 4096):expect "0"
  local fault = w.vmm:start("touch", 9, "w"):run_to "fault:folio"
  w.file:page(9):has { attr = SHARED, ref = 2, map = 0, holders = 1 }
  if policy == "A" then
    say "Policy A looks for a mapping and for a pin, and converts. Then the PTE is set, to a private page."
    w.vmm:convert(9, 1, PRIVATE):expect "0":violates "I1"
    fault:finish():expect "0":violates "I1"
    w.file:page(9):has { attr = PRIVATE, ref = 2, map = 1 }
    return
  end
  w.vmm:convert(9, 1, PRIVATE):expect "EAGAIN@9":holder "vmm"

  say "The fault ends; nothing is in the way any more."
  fault:finish():expect "0"
  w.file:page(9):has { attr = SHARED, ref = 2, map = 1 }
  w.vmm:convert(9, 1, PRIVATE):expect "0"
  w.vmm:touch(9):expect "SIGBUS"

  say "The other order: the conversion has the lock first, the fault waits for it and finds a private page."
  for _, label in ipairs { "convert:locked", "convert:unmapped", "convert:checked", "convert:prepared", "convert:stored" } do
    w = world {}
    w.vmm:fallocate(1, 9 * 4096, 4096):expect "0"
    local convert = w.vmm:start("convert", 9, 1, PRIVATE):run_to(label)
    fault = w.vmm:start("touch", 9)
    equal(fault:run(), "waits", "the fault, for the file's lock")
    convert:finish():expect "0"
    fault:finish():expect "SIGBUS"
    w.file:page(9):has { attr = PRIVATE, ref = 1, map = 0 }
    w:close()
  end
end
