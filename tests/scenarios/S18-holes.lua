-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S18", title = "Holes, unallocated offsets, precision",
  source = "scenarios.md S18; guest_memfd.md 1.3 [KSELF]",
  live = true,
}

function play()
  local w = world {}

  say "Of eight pages three are allocated; all eight become private, and no page is allocated for that."
  for _, p in ipairs { 0, 2, 5 } do
    w.vmm:write(p, "page " .. p):expect "0"
  end
  -- With real processes the model learns of these pages when they are converted.
  w.file:ranges():has { ranges = 1, shared = 16, allocated = { sim = 3 } }
  w.vmm:convert(0, 8, PRIVATE):expect "0"
  w.file:ranges():has { ranges = 2, private = 8, shared = 8, allocated = 3 }
  for p = 0, 7 do
    w.file:page(p):has { attr = PRIVATE }
  end

  say "The guest touches a hole: a new page, zeroed and private."
  w.guest:read(3):expect "0":reads ""
  w.file:page(3):has { attr = PRIVATE, allocated = 1 }
  w.file:ranges():has { allocated = 4 }

  say "One page goes back, its neighbours stay."
  w.vmm:convert(5, 1, SHARED):expect "0"
  for p = 0, 7 do
    w.file:page(p):has { attr = p == 5 and SHARED or PRIVATE }
  end
  -- The scenario's three ranges of these eight pages, and the rest of the file.
  w.file:ranges():has { ranges = 4, private = 7, allocated = 4 }
  w.vmm:read(5):expect "0":reads "page 5"

  say "And comes again: the ranges merge."
  w.vmm:convert(5, 1, PRIVATE):expect "0"
  w.file:ranges():has { ranges = 2, private = 8, allocated = 4 }
  w.guest:read(5):expect "0":reads "page 5"
end
