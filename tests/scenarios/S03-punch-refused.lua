-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S3", title = "A hole punch with a failing invalidate",
  source = "scenarios.md S3; background.md 1.2 [LIB2][LIB4]",
  live = "nothing makes the hypervisor of the live stage refuse what its rules allow",
}

local function four_pages(options)
  local w = world(options)
  w.vmm:convert(0, 16, PRIVATE):expect "0"
  for p = 0, 3 do
    w.guest:write(p, "guest " .. p):expect "0"
  end
  w.hyp:refuse("reclaim", 2):expect "0"
  return w
end

function play()
  say "Version 4 of the library: the hypervisor keeps page 2, so the hole is not punched.  Nothing is truncated."
  local w = four_pages { library = true }
  w.vmm:punch(0, 4):expect "EBUSY"
  w.file:ranges():has { allocated = 4 }
  w.guest:read(2):expect "0":reads "guest 2"
  w.hyp:allow("reclaim", 2):expect "0"
  w.vmm:punch(0, 4):expect "0"
  w.file:ranges():has { allocated = 0 }

  say "RFC v2 returns 0.  The page is gone and its frame is free, though the guest reaches it still."
  w = four_pages { bugs = "punch-ignores-invalidate" }
  w.vmm:punch(0, 4):expect "0":violates "I3"
  w.file:ranges():has { allocated = 0 }:violates "I3"

  say "The merged code drops the bytes and keeps the frame: it has nobody to ask."
  w = four_pages {}
  w.vmm:punch(0, 4):expect "0"
  w.file:ranges():has { allocated = 1 }
end
