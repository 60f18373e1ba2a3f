-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S58", title = "An initial image, in place",
  source = "scenarios.md S58; background.md 0.4; guest_memfd.md 6 [MMAP618][INPL]",
  hyps = "pkvm sw-protected firmware",
  live = "the daemon does not reach into a process's memory: a VMM stores the image before the conversion",
}

local PRESERVE = 2
local page = 4096

function play()
  local w = world { abi = 5 }

  say "The image is in shared pages of the same file, its place in private ones."
  w.vmm:write(8, "kernel"):expect "0"
  w.vmm:convert_raw(0, 4 * page, PRIVATE, PRESERVE):expect "0"
  w.vmm:populate(2, 1, 8):expect "0"

  say "A source that is not aligned; a private one; a destination that is shared, or no memory."
  w.vmm:populate(2, 1, 8, 16):expect "EINVAL"
  w.vmm:populate(2, 1, 3):expect "EFAULT"
  w.vmm:populate(9, 1, 8):expect "EINVAL"
  w.vmm:populate(99, 1, 8):expect "EINVAL"

  say "In place: no source, the page's own bytes count."
  w.vmm:write(5, "initrd"):expect "0"
  w.vmm:convert_raw(5 * page, page, PRIVATE, PRESERVE):expect "0"
  w.vmm:populate(5):expect "0"

  say "The guest finds both; its image is final now."
  w.guest:read(2):expect "0":reads "kernel"
  w.guest:read(5):expect "0":reads "initrd"
  w.vmm:populate(2, 1, 8):expect "EINVAL"
  w.vmm:convert_raw(9 * page, page, PRIVATE, PRESERVE)
    :expect { pkvm = "0", ["sw-protected"] = "0", firmware = "EOPNOTSUPP" }

  say "The lock first and the source after it: a fault takes them the other way round."
  w = world { bugs = "populate-lock-order" }
  w.vmm:write(8, "kernel"):expect "0"
  w.vmm:convert(0, 4, PRIVATE):expect "0"
  w.vmm:populate(2, 1, 8):expect "EDEADLK":violates "possible circular locking dependency"
end
