-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S11", title = "GUP-fast against the check",
  source = "scenarios.md S11; background.md 0.3, 2.5 [DH24][GUPCODE]",
  policies = "A D",
  live = "the real kernel's walk stops for nobody",
}

local MODES = { "broadcast", "ipi" }

local function begin(mode, bugs)
  local w = world { bugs = bugs }
  w.kern:tlb(mode):expect "0"
  w.vmm:write(8, "eight"):expect "0"
  w.vmm:on_cpu(1):expect "0"
  local gup = w.vmm:start("gup", 8, 1, "FOLL_PIN", "O_DIRECT")
  w.vmm:on_cpu(0):expect "0"
  return w, gup
end

function play()
  loses()
  comes_first()
  for _, mode in ipairs(MODES) do
    every_order(mode)
  end
  if policy == "A" then
    wrong_order()
  end
end

function loses()
  say "GUP-fast has read the PTE when the page is unmapped, found clean and converted. What it then takes, it puts:"
  say "the PTE is not what it was. Its slow path faults, and the page is private."
  local w, gup = begin "broadcast"
  gup:run_to "gup:pte-read"
  w.vmm:convert(8, 1, PRIVATE):expect "0"
  gup:run_to "gup:grabbed"
  w.file:page(8):has { attr = PRIVATE, ref = 1 + 1024, map = 0 }
  gup:finish():expect "EFAULT"
  w.file:page(8):has { attr = PRIVATE, ref = 1, holders = 0 }
end

function comes_first()
  say "It has its reference before the check: one EAGAIN that no user is to blame for. It sees the PTE gone, and puts."
  local w, gup = begin "broadcast"
  gup:run_to "gup:grabbed"
  local convert = w.vmm:start("convert", 8, 1, PRIVATE)
  convert:finish():expect "EAGAIN@8":holder "O_DIRECT"
  say "The page is shared still, so the slow path gets it."
  local pin = gup:finish():expect "0"
  w.vmm:convert(8, 1, PRIVATE):expect "EAGAIN@8":holder "O_DIRECT"
  w.vmm:unpin(pin):expect "0"
  w.vmm:convert(8, 1, PRIVATE):expect "0"
end

-- All orders of the steps of both.
function every_order(mode)
  explore {
    name = "GUP-fast against a conversion, TLBs flushed by " .. mode,
    setup = function()
      local w, gup = begin(mode)
      return { gup = gup, convert = w.vmm:start("convert", 8, 1, PRIVATE) }
    end,
    ends = function(e)
      check(not (e.gup == "0" and e.convert == "0"), "the page is private, and pinned")
      check(e.gup == "0" or e.convert == "0", "neither of them got the page")
      check(e.gup == "0" and e.convert == "EAGAIN@8" or e.gup == "EFAULT", e.state)
    end,
  }
end

function wrong_order()
  say "Policy A with its checks in the wrong order: it looks for pins, GUP-fast gets one, and then it looks for mappings."
  local w, gup = begin("broadcast", "naive-check-order")
  local convert = w.vmm:start("convert", 8, 1, PRIVATE):run_to "convert:pins-checked"
  gup:finish():expect "0"
  convert:finish():expect "0":violates "I1"
  w.file:page(8):has { attr = PRIVATE, ref = 1 + 1024 }
  local found = explore {
    name = "GUP-fast against checks in the wrong order",
    setup = function()
      local w, gup = begin("broadcast", "naive-check-order")
      return { gup = gup, convert = w.vmm:start("convert", 8, 1, PRIVATE) }
    end,
    violates = "I1",
  }
  check(found.labels <= 12, found.schedule)
end
