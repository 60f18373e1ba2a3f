-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S49", title = "Memory failure of a shared page",
  source = "scenarios.md S49; background.md 0.3 [MF]",
  live = "no memory of the real machine is made to fail",
}

local BUS_MCEERR_AR, BUS_MCEERR_AO = 4, 5

-- dirty: the VMM has written the page.  early: it asked to be told early.  action: the processor consumed the poison.
local function fail(dirty, early, action, told, bugs)
  local w = world { bugs = bugs }
  w.vmm:mce_kill(early):expect "0"
  w.vmm:touch(3, dirty and "w" or "r"):expect "0"
  local rc = bugs and "EBUSY" or "0"
  local pfn = w.kern:memory_failure(3, action):expect(rc).pfn
  w.vmm:signals():has { signals = told and 1 or 0, code = told and (action == 1 and BUS_MCEERR_AR or BUS_MCEERR_AO) or 0 }

  say "Whoever touches it from now on is told, and the page stays in its file with one reference more."
  w.vmm:touch(3):expect "SIGBUS"
  w.file:page(3):has { attr = SHARED, ref = 2, map = 0, holders = 1, pfn = pfn }
  w.kern:memory_failure(3):expect "EHWPOISON"
  return w, pfn
end

function play()
  say "Mapped and written, and the processor has consumed the poison: SIGBUS at once."
  fail(true, 0, 1, true):close()
  say "The process has asked to be told early: SIGBUS at once."
  fail(true, 1, 0, true):close()
  say "It is told late: nothing, until it touches the page."
  fail(true, 0, 0, false):close()
  say "A clean page can be had again: nobody is told."
  fail(false, 1, 1, false):close()

  say "Not mapped: nobody to tell."
  local w = world {}
  w.vmm:fallocate(1, 3 * 4096, 4096):expect "0"
  w.kern:memory_failure(3, 1):expect "0"
  w.vmm:signals():has { signals = 0 }
  w.vmm:touch(3):expect "SIGBUS"
  w:close()

  say "A hole and unpoison clean up: the file has a new page at once, the frame comes back when it is good again."
  local w, pfn = fail(true, 0, 0, false)
  w.vmm:punch(3):expect "0"
  w.vmm:touch(3):expect "0"
  check(w.file:page(3).pfn ~= pfn, "the bad frame is used again")
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.kern:unpoison(pfn):expect "0"
  w.kern:unpoison(pfn):expect "ENOENT"
  w:close()

  say "The kernel of before: memory_failure() says EBUSY, and has killed everybody who had the page mapped, clean or not."
  fail(false, 0, 0, true, "mf-ebusy")
end
