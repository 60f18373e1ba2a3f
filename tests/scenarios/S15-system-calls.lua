-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S15", title = "read(2) and write(2) with a private buffer",
  source = "scenarios.md S15; background.md 7.4; guest_memfd.md 2.5 [XGUP 0744]",
  live = true,
}

function play()
  local w = world {}
  w.vmm:write(2, "two"):expect "0"
  w.vmm:write(3, "three"):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "0"

  say "The kernel copies for the process, and is refused as the process is: an errno in place of a signal."
  w.vmm:sys_read(3, 4096):expect "EFAULT"
  w.vmm:sys_write(3, 4096):expect "EFAULT"

  say "Half of the buffer is shared: the call stops where the private page begins."
  w.vmm:sys_read(2, 8192):expect "4096"
  w.vmm:sys_write(2, 8192):expect "4096"

  say "GUP needs the page and does not get it: no I/O begins."
  w.vmm:direct_read(3, 1):expect "EFAULT"
  w.vmm:pin(3, 1, "FOLL_LONGTERM", "io_uring buffer"):expect "EFAULT"
  w.vmm:vmsplice(3):expect "EFAULT"
  w.file:page(3):has { attr = PRIVATE, ref = 1, holders = 0 }

  say "Nobody has died of it, and the guest has what it had."
  w.vmm:touch(2):expect "0"
  w.vmm:touch(3):expect "SIGBUS"
  w.guest:read(3, 6):expect "0":reads "three"

  say "Shared again, all of them work."
  w:follow(1)
  w.guest:share(3):expect "0"
  w.vmm:sys_write(2, 8192):expect "8192"
  w.vmm:direct_read(3, 1):expect "4096"
  w.vmm:sys_read(2, 8192):expect "8192"
end
