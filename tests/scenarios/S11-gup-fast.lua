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

-- Each way to deal the steps of the two to one CPU after another.
local GUP = { "gup:pte-read", "gup:grabbed", "gup:rechecked" }
local CONVERT = { "convert:locked", "unmap:cleared", "convert:unmapped", "convert:checked", "convert:prepared",
  "convert:stored" }

local function one_order(mode, order)
  local w, gup = begin(mode)
  local convert = w.vmm:start("convert", 8, 1, PRIVATE)
  local at = { G = 0, C = 0 }
  local op = { G = gup, C = convert }
  local ended = { G = false, C = false }
  for i = 1, #order do
    local who = order:sub(i, i)
    if not ended[who] then
      at[who] = at[who] + 1
      local points = who == "G" and GUP or CONVERT
      ended[who] = op[who]:run(points[at[who]]) == "ended"
    end
  end
  for _ = 1, 2 do
    for _, who in ipairs { "G", "C" } do
      ended[who] = ended[who] or op[who]:run() == "ended"
    end
  end
  local pinned, converted = gup:finish(), convert:finish()
  check(not (pinned.word == "0" and converted.word == "0"), order .. ": the page is private, and pinned")
  check(pinned.word == "0" or converted.word == "0", order .. ": neither of them got the page")
  if pinned.word == "0" then
    converted:expect "EAGAIN@8":holder "O_DIRECT"
  else
    pinned:expect "EFAULT"
    w.file:page(8):has { attr = PRIVATE, ref = 1, holders = 0 }
  end
  w:close()
end

local function deal(mode, order, gups, converts)
  if gups == 0 and converts == 0 then
    one_order(mode, order)
    return 1
  end
  local n = 0
  if gups > 0 then
    n = n + deal(mode, order .. "G", gups - 1, converts)
  end
  if converts > 0 then
    n = n + deal(mode, order .. "C", gups, converts - 1)
  end
  return n
end

function every_order(mode)
  say("Every order of the steps of both, TLBs flushed by " .. mode .. ": never a private page that is pinned.")
  equal(deal(mode, "", #GUP, #CONVERT), 84, "orders: 9 steps, of which 3 are GUP's")
end

function wrong_order()
  say "Policy A with its checks in the wrong order: it looks for pins, GUP-fast gets one, and then it looks for mappings."
  local w, gup = begin("broadcast", "naive-check-order")
  local convert = w.vmm:start("convert", 8, 1, PRIVATE):run_to "convert:pins-checked"
  gup:finish():expect "0"
  convert:finish():expect "0":violates "I1"
  w.file:page(8):has { attr = PRIVATE, ref = 1 + 1024 }
end
