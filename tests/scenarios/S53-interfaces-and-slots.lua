-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S53", title = "Exclusive interfaces, and the rules of memslots",
  source = "scenarios.md S53; background.md 2.2, 2.3; guest_memfd.md 2.8 [INPL][SLOTUAF]",
  trackers = "inode vm folio hyp",
  live = "the library sets the flags of a memslot of its own accord",
}

local LOG_DIRTY, READONLY, GUEST_MEMFD = 1, 2, 4

function play()
  local w = world {}

  say "Attributes by VM, or by file: where one interface is, the other is not."
  w.vmm:convert(3, 1, PRIVATE):expect { inode = "0", vm = "ENOTTY", folio = "0", hyp = "0" }
  w.vm:set_attributes(3, 1, PRIVATE):expect { inode = "ENOTTY", vm = "0", folio = "ENOTTY", hyp = "ENOTTY" }

  say "A slot of a guest_memfd is neither read-only nor logged."
  w.vm:slot(7, 32, 4, 0, GUEST_MEMFD | READONLY):expect "EINVAL"
  w.vm:slot(7, 32, 4, 0, GUEST_MEMFD | LOG_DIRTY):expect "EINVAL"

  say "Nor can it be changed, not even to what it is; and a range of the file is bound once."
  w.vm:slot(0, 0, 16):expect "EINVAL"
  w.vm:slot(7, 32, 4):expect "EEXIST"
  w.vm:slot(7, 8, 4):expect "EEXIST"

  say "It does not lose its flag either."
  w.vm:slot(0, 0, 16, 0, 0):expect "EINVAL"

  say "Another VM's file is refused."
  local second = w:second_vm()
  second:slot(0, 0, 16):expect "EINVAL"

  say "Deleted, it is there no more."
  w.vm:slot(0, 0, 0):expect "0"
  w.guest:read(3):expect "EXIT_MMIO"

  say "Before Linux 6.19 the flag could be taken: the slot goes, its binding stays and points to freed memory."
  w = world { bugs = "slot-toggle" }
  w.vm:slot(0, 0, 16, 0, 0):expect "0"
  w.vm:slot(0, 0, 0):expect "0"
  w.file:close():expect "0":violates "use-after-free"
end
