-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S7", title = "Long-term pin: VFIO and io_uring",
  source = "scenarios.md S7; background.md 0.3, 6.2 [XGUP][1G1]",
  live = true,
}

-- The device is the model's.  With real processes its long-term pin is all that there is of it; the verdicts need no more.
local function assign(w)
  if stage == "live" then
    return w.vmm:pin(4, 1, "FOLL_LONGTERM", "nic"):expect "0"
  end
  local nic = w:device "nic"
  nic:map(w.vmm, 4, 1, 0x100):expect "0"
  return nic
end

local function dma_write(w, nic, text)
  if stage == "live" then
    w.vmm:write(4, text):expect "0"
  else
    nic:dma_write(0x100, text):expect "0"
  end
end

local function protocol()
  local w = world {}
  for page = 3, 5 do
    w.vmm:write(page, "buffer"):expect "0"
  end

  say "Page 4 is mapped for a device, and page 9 is a fixed buffer of an io_uring: long-term pins, both."
  local nic = assign(w)
  local ring = w.vmm:pin(9, 1, "FOLL_LONGTERM", "io_uring buffer"):expect "0"
  dma_write(w, nic, "packet")
  w.vmm:read(4, 6):expect "0":reads "packet"
  w.file:page(4):has { ref = { sim = 1 + 1 + 1024, live = 1 + 1024 }, map = { sim = 1 } }

  say "A VMM that only tries again is told the same a hundred times, and nothing else is harmed."
  local before = w.file:hash()
  for _ = 1, 100 do
    w.vmm:convert(0, 9, PRIVATE):expect "EAGAIN@4":holder "nic"
  end
  w.file:page(4):has { attr = SHARED, ref = 1 + 1024, map = 0 }
  w.file:ranges():has { ranges = 1, private = 0 }
  w.vmm:read(3, 6):expect "0":reads "buffer"
  w.vmm:read(4, 6):expect "0":reads "packet"
  w.vmm:read(5, 6):expect "0":reads "buffer"
  if stage == "sim" then
    equal(w.file:hash().value, before.value, "the state of the file after 100 refusals, once its pages are mapped again")
  end
  w.vmm:convert(9, 1, PRIVATE):expect "EAGAIN@9":holder "io_uring buffer"

  say "The protocol: the VMM lets the device and the ring go, then it converts."
  if stage == "live" then
    w.vmm:unpin(nic):expect "0"
  else
    equal(nic:unmap(0x100).value, 1, "pages that VFIO unmapped")
  end
  w.vmm:unpin(ring):expect "0"
  w.vmm:convert(0, 16, PRIVATE):expect "0"
  w.guest:write(4, "secret"):expect "0"

  if stage == "sim" then
    say "The device is late: its IOVA translates to nothing any more."
    nic:dma_read(0x100):expect "EFAULT"
    nic:dma_write(0x100, "late"):expect "EFAULT"
  end
  w.guest:read(4, 6):expect "0":reads "secret"

  say "Nor can the page be pinned again while it is private."
  if stage == "sim" then
    nic:map(w.vmm, 4, 1, 0x100):expect "EFAULT"
  end
  w.vmm:pin(4, 1, "FOLL_LONGTERM", "nic"):expect "EFAULT"
end

local function forgets()
  say "A VMM that has forgotten about the device tells the guest that it failed, and the guest keeps the page shared."
  local w = world {}
  w.guest:read(4, 6):expect "EXIT_MEMORY_FAULT"
  w.vmm:convert(4, 1, PRIVATE):expect "0"
  w.guest:resume():expect "0"
  w.guest:share(4):expect "EXIT_HYPERCALL"
  w.vmm:convert(4, 1, SHARED):expect "0"
  w.guest:resume():expect "0"
  local nic = assign(w)
  w.guest:unshare(4):expect "EXIT_HYPERCALL"
  w.vmm:convert(4, 1, PRIVATE):expect "EAGAIN@4":holder "nic"
  w.guest:resume():expect "INVALID_PARAMETER"
  dma_write(w, nic, "packet")
  w.guest:read(4, 6):expect "0":reads "packet"
  w.vmm:read(4, 6):expect "0":reads "packet"
end

function play()
  protocol()
  forgets()
end
