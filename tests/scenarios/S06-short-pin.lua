-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S6", title = "Short-term GUP during a conversion",
  source = "scenarios.md S6; background.md 0.3, 2.3, 2.4; guest_memfd.md 3.3 [INPL][FUAD7][LIB2]",
  policies = "A B C D",
  live = true,
}

-- In simulation the kernel's references are the model's; live the PTEs are the real kernel's, and the model counts the pin.
function play()
  local w = world {}

  say "The VMM reads from a disk, straight into page 3: for the time of the I/O the page is pinned."
  w.vmm:write(3, "buffer"):expect "0"
  local io = w.vmm:pin(3, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.file:page(3):has { attr = SHARED, ref = { sim = 1 + 1 + 1024, live = 1 + 1024 }, map = { sim = 1 } }

  say "The guest wants it back before the disk is done."
  w.vmm:convert(3, 1, PRIVATE)
    :expect { A = "EAGAIN@3", B = "EBUSY", C = "NONE_SHARED", D = "EAGAIN@3" }
    :holder { A = "O_DIRECT read", B = "O_DIRECT read", D = "O_DIRECT read" }

  if policy == "C" then
    nobodys(w, io)
  else
    again(w, io)
  end
  if policy == "B" and stage == "sim" then
    in_time()
  end
end

function again(w, io)
  say "Nothing has changed but the PTE, which is gone. The page is there for both, as before."
  w.file:page(3):has { attr = SHARED, ref = 1 + 1024, map = 0 }
  w.vmm:read(3, 7):expect "0":reads "buffer"
  w.file:page(3):has { attr = SHARED, map = { sim = 1 } }

  say "The disk is done."
  w.vmm:unpin(io):expect "0"
  w.vmm:convert(3, 1, PRIVATE):expect "0"
  w.file:page(3):has { attr = PRIVATE, ref = 1, map = 0 }
  w.vmm:touch(3):expect "SIGBUS"
  w.guest:read(3, 7):expect "0":reads "buffer"
end

function nobodys(w, io)
  say "The page is nobody's: neither side may touch it until the disk is done."
  w.vmm:touch(3):expect "SIGBUS"
  w.guest:read(3, 7):expect "EXIT_MEMORY_FAULT"

  say "The last foreign reference goes, and its folio_put() makes the page private: nobody tries again."
  w.vmm:unpin(io):expect "0"
  w.file:page(3):has { attr = PRIVATE, ref = 1, map = 0 }
  w.guest:resume():expect "0":reads "buffer"
  w.vmm:touch(3):expect "SIGBUS"
end

function in_time()
  say "Once more, with a faster disk: policy B waits, and 10 ms have not gone by when the I/O ends."
  local w = world {}
  w.vmm:write(3, "buffer"):expect "0"
  local io = w.vmm:pin(3, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  local convert = w.vmm:start("convert", 3, 1, PRIVATE):run_to "convert:waiting"
  w.vmm:unpin(io):expect "0"
  convert:finish():expect "0"
  w.file:page(3):has { attr = PRIVATE, ref = 1, map = 0 }
end
