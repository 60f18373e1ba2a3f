-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S55", title = "A guest takes back a page under its own DMA",
  source = "scenarios.md S55; background.md 6.2 [XGUP, Jason Gunthorpe]",
  live = true,
}

function play()
  local w = world { private = true, follow = true }

  say "The guest posts a virtio-blk buffer: it shares page 3, and the VMM starts the read into it."
  w.guest:write(3, "posted"):expect "0"
  w.guest:share(3):expect "0"
  local io = w.vmm:pin(3, 1, "FOLL_PIN", "virtio-blk read"):expect "0"

  say "It takes the page back before the completion.  The VMM tries, is refused, and tells the guest so."
  w.guest:unshare(3):expect "INVALID_PARAMETER"
  w.vmm:convert(3, 1, PRIVATE):expect "EAGAIN@3":holder "virtio-blk read"
  w.file:page(3):has { attr = SHARED, holders = 1 }

  say "A guest that insists gets the same answer: it stands still by its own doing, and the page stays shared."
  w.guest:unshare(3):expect "INVALID_PARAMETER"
  w.guest:read(3, 7):expect "0":reads "posted"

  say "The late write of the device (the VMM stores in its place) lands in shared memory; then the I/O is done."
  w.vmm:write(3, "sector"):expect "0"
  w.vmm:unpin(io):expect "0"

  say "Now the page goes, with what the device wrote before it did."
  w.guest:unshare(3):expect "0"
  w.file:page(3):has { attr = PRIVATE, ref = 1, holders = 0 }
  w.guest:read(3, 7):expect "0":reads "sector"
  w.vmm:touch(3):expect "SIGBUS"
end
