-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S56", title = "A poisoned gfn stays poisoned",
  source = "scenarios.md S56; background.md 8.1; pkvm.md [PKVM]",
  live = true,
}

-- The block variant, where a mistake zeroed the first 4K only, needs block mappings (huge pages).  Upstream the host's
-- reference to the page is a pin that is dropped at teardown; here it is the page cache's.
function play()
  local w = world { private = true, vcpus = 2 }
  w.guest:write(3, "secret"):expect "0"

  say "An errant load of the kernel: the page is taken from the guest, zeroed, and its IPA is marked."
  w.kern:load(3):expect "0":reads ""
  w.guest:read(3):expect "EFAULT"

  say "The VMM runs the vCPU again, and again: each time the host faults the page in, and EL2 gives nothing there."
  w.guest:resume():expect "EFAULT"
  w.guest:resume():expect "EFAULT"
  w:vcpu(1):write(3, "new"):expect "EFAULT"

  say "Not even another page: the mark is on the IPA."
  w.vmm:punch(3):expect "0"
  w.guest:resume():expect "EFAULT"
  w.file:page(3):has { attr = PRIVATE }

  say "Until the VM is gone.  Then the memory is the host's like any other, and zero."
  w.vm:destroy():expect "0"
  w.vmm:convert(0, 16, SHARED):expect "0"
  w.vmm:read(3):expect "0":reads ""
end
