-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S46", title = "Truncation of private memory",
  source = "scenarios.md S46; background.md 2.3, 2.5, 7.2; guest_memfd.md 2.2, 2.3, 2.6 [INPL][KSELF][MMAP618]",
  trackers = "inode vm folio hyp",
  hyps = "pkvm sw-protected",
  live = true,
}

-- ftruncate(2) on the descriptor is EINVAL in the kernel.  The descriptor of the live stage is a sealed memfd, where it is
-- EPERM, and in simulation there is no descriptor: tests/live/escapes_file tries it.

local PUNCH_HOLE, KEEP_SIZE = 2, 1

local function convert(w, page, nr, to)
  if tracker == "vm" then
    w.vm:set_attributes(page, nr, to):expect "0"
  else
    w.vmm:convert(page, nr, to):expect "0"
  end
end

function play()
  local w = world {}
  w.vmm:write(3, "three"):expect "0"
  convert(w, 3, 2, PRIVATE)
  w.guest:write(3, "secret"):expect "0"
  w.file:page(3):has { attr = { hyp = (hyp == "pkvm" and PRIVATE or SHARED), _ = PRIVATE }, allocated = 1 }

  say "The VMM punches a hole where the guest's page is.  The page goes, scrubbed."
  w.vmm:punch(3):expect "0"
  w.file:page(3):has { allocated = 0 }

  say(({
    inode = "The state belongs to the offset of the file, and stays.",
    vm = "The state belongs to the gfn, and stays.",
    folio = "The state went with the folio: the offset is what the file began with, shared.  The host walks in.",
    hyp = "Only the hypervisor knows, and it knows pages: where there is none it has nothing to say against the host.",
  })[tracker])
  w.file:page(3):has { attr = { inode = PRIVATE, vm = PRIVATE, folio = SHARED, hyp = SHARED } }
  w.vmm:write(3, "mine"):expect { inode = "SIGBUS", vm = "SIGBUS", folio = "0", hyp = "0" }

  say "What the guest had there is lost to it, and it finds out.  (pKVM has no call for it: the IPA is dead.)"
  local v = w.guest:read(3)
  if tracker == "folio" and hyp == "pkvm" then
    v:expect "EXIT_MEMORY_FAULT"
  elseif hyp == "pkvm" then
    v:expect "EFAULT"
  else
    v:expect "0":reads { inode = "", vm = "", folio = "mine", hyp = "mine" }
  end
  if tracker == "inode" then
    rest()
  end
end

function rest()
  local w = world { vcpus = 1 }
  say "MADV_REMOVE at a private page is a hole punch too: the VMM can destroy what the guest has, and never read it."
  w.vmm:write(5, "five"):expect "0"
  convert(w, 5, 1, PRIVATE)
  w.vmm:madvise_remove(5):expect "0"
  w.vmm:touch(5):expect "SIGBUS"

  say "A hole in shared memory stays shared."
  w.vmm:write(6, "six"):expect "0"
  w.vmm:punch(6):expect "0"
  w.file:page(6):has { attr = SHARED, allocated = 0 }
  w.vmm:read(6):expect "0":reads ""

  say "What else fallocate() can do to a file it cannot do to this one."
  w.vmm:fallocate(0, 0, 4096):expect "EOPNOTSUPP"
  w.vmm:fallocate(PUNCH_HOLE, 0, 4096):expect "EOPNOTSUPP"
  w.vmm:fallocate(PUNCH_HOLE | KEEP_SIZE, 1, 4096):expect "EINVAL"
  w.vmm:fallocate(PUNCH_HOLE | KEEP_SIZE, 0, 0):expect "EINVAL"
  w.vmm:fallocate(KEEP_SIZE, 15 * 4096, 2 * 4096):expect "EINVAL"
end
