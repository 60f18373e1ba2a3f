-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S52", title = "Two VMs, one inode",
  source = "scenarios.md S52; background.md 7.2, 7.5 [INPL][GNY]",
  hyps = "sw-protected", trackers = "inode vm folio hyp",
  live = "a process of the live stage has one VM",
}

-- Gunyah's answer to a second binding of a range, EEXIST across VMs too, is that hypervisor's.
local function convert(w, page, nr, attr)
  if tracker == "vm" then
    return w.vm:set_attributes(page, nr, attr)
  end
  return w.vmm:convert(page, nr, attr)
end

function play()
  local w = world {}
  local second = w:second_vm()
  local guest = second:vcpu(0)

  say "Another VM's file is not a VM's to bind, until it is linked into it."
  second:slot(0, 0, 16):expect "EINVAL"
  w.file:link(second):expect "0"
  second:slot(0, 0, 16):expect "0"
  second:slot(1, 32, 4):expect "EEXIST"

  say "Both guests have the shared page, and see each other's stores."
  w.vmm:write(3, "hello"):expect "0"
  w.guest:read(3):expect "0":reads "hello"
  guest:read(3):expect "0":reads "hello"
  guest:write(3, "from 2"):expect "0"
  w.guest:read(3):expect "0":reads "from 2"

  say "The conversion takes it out of the stage 2 of both; each faults it in again as what it is now."
  convert(w, 3, 1, PRIVATE):expect "0"
  w.guest:read(3):expect "0":reads "from 2"
  guest:read(3):expect "0":reads "from 2"
  w.vmm:touch(3):expect { inode = "SIGBUS", vm = "SIGBUS", folio = "SIGBUS", hyp = "0" }

  say "The second VM's own wish is nobody's business but its own: the file is what counts."
  second:set_attributes(3, 1, SHARED):expect { inode = "ENOTTY", vm = "0", folio = "ENOTTY", hyp = "ENOTTY" }
  w.vmm:touch(3):expect { inode = "SIGBUS", vm = "SIGBUS", folio = "SIGBUS", hyp = "0" }

  say "The VM that made the file goes; the second one goes on.  Kept by the VM, what was private is forgotten with it."
  w.vm:destroy():expect "0"
  guest:read(3):expect "0":reads "from 2"
  w.vmm:touch(3):expect { inode = "SIGBUS", vm = "0", folio = "SIGBUS", hyp = "0" }
end
