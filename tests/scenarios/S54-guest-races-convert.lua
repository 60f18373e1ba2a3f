-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S54", title = "Guest access racing a conversion",
  source = "scenarios.md S54; background.md 0.4, 2.3 [INPL][1G2]",
  live = true,
}

-- KVM compares a sequence count where a fault does not hold the lock (between invalidate_begin and invalidate_end it
-- tries again); here the fault holds the file's lock in shared mode all the way and (ii) is a wait for it.
local function to_private()
  say "(i) The guest's fault comes first: it sees a shared page, which is the VMM's to decide. The conversion is not held up."
  local w = world {}
  w.vmm:write(3, "three"):expect "0"
  local fault = w.guest:start("read", 3, 5):run_to "abort:locked"
  local convert = w.vmm:start("convert", 3, 1, PRIVATE)
  equal(convert:run(), "waits", "the conversion, for the file's lock")
  fault:finish():expect "EXIT_MEMORY_FAULT"
  convert:finish():expect "0"
  w.guest:resume():expect "0":reads "three"
  w.vmm:touch(3):expect "SIGBUS"

  say "(ii) The conversion is on its way: the fault waits for it, whatever step it has come to."
  for _, label in ipairs { "convert:locked", "convert:unmapped", "convert:checked", "convert:prepared", "convert:stored" } do
    w = world {}
    w.vmm:write(3, "three"):expect "0"
    convert = w.vmm:start("convert", 3, 1, PRIVATE):run_to(label)
    fault = w.guest:start("read", 3, 5)
    equal(fault:run(), "waits", "the guest's fault, for the file's lock")
    convert:finish():expect "0"
    fault:finish():expect "0":reads "three"
    w.file:page(3):has { attr = PRIVATE, map = 0 }
    w.vmm:touch(3):expect "SIGBUS"
    w:close()
  end

  say "(iii) The conversion is done: the fault gets a private page."
  w = world {}
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.guest:write(3, "secret"):expect "0"
  w.vmm:touch(3):expect "SIGBUS"
end

local function to_shared()
  say "The other way: a fault that has come as far as its folio, or its mapping, goes to the end before the conversion."
  for _, label in ipairs { "abort:locked", "abort:folio", "abort:mapped" } do
    local w = world { private = true }
    local fault = w.guest:start("write", 3, "secret"):run_to(label)
    local convert = w.vmm:start("convert", 3, 1, SHARED)
    equal(convert:run(), "waits", "the conversion, for the file's lock")
    fault:finish():expect "0"
    convert:finish():expect "0"
    say "Nobody asked the guest: EL2 does not let the host at the page, whatever the attribute says."
    w.vmm:touch(3):expect "SIGSEGV"
    w:close()
  end

  say "The conversion first: the guest's access is one to a shared page, and the VMM's to answer."
  local w = world { private = true }
  w.vmm:convert(3, 1, SHARED):expect "0"
  w.guest:write(3, "secret"):expect "EXIT_MEMORY_FAULT"
  w.vmm:write(3, "three"):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.guest:resume():expect "0"
  w.vmm:touch(3):expect "SIGBUS"
end

local function mapped()
  say "The guest has the page mapped and shared: no fault, no lock; an access while the page changes waits for the end."
  for _, label in ipairs { "stage:begin", "stage:moved" } do
    local w = world { private = true, follow = true }
    w.guest:write(3, "three"):expect "0"
    w.guest:share(3):expect "0"
    local convert = w.vmm:start("convert", 3, 1, PRIVATE):run_to(label)
    local access = w.guest:start("write", 3, "four")
    equal(access:run(), "waits", "the guest's access")
    convert:finish():expect "0"
    access:finish():expect "0"
    w.vmm:touch(3):expect "SIGBUS"
    w.guest:read(3):expect "0":reads "four"
    w:close()
  end
end

local function every_order()
  explore {
    name = "a guest's access against a conversion to private",
    setup = function()
      local w = world {}
      w.vmm:write(3, "three"):expect "0"
      return { access = w.guest:start("read", 3, 5), convert = w.vmm:start("convert", 3, 1, PRIVATE) }
    end,
    ends = function(e)
      check(e.convert == "0" and (e.access == "0" or e.access == "EXIT_MEMORY_FAULT"), e.state)
    end,
  }
  explore {
    name = "a guest's access against a conversion to shared",
    setup = function()
      local w = world { private = true }
      return { access = w.guest:start("write", 3, "secret"), convert = w.vmm:start("convert", 3, 1, SHARED) }
    end,
    ends = function(e)
      check(e.convert == "0" and (e.access == "0" or e.access == "EXIT_MEMORY_FAULT"), e.state)
    end,
  }
end

function play()
  if stage == "sim" then
    every_order()
    to_private()
    to_shared()
    mapped()
  end
  say "And without a script: four pages, four vCPUs, a thread of the VMM, as fast as they can."
  local w = world { vcpus = 4 }
  for _ = 1, 10 * repeats do
    w:storm(2, 4, 20):expect "0"
  end
end
