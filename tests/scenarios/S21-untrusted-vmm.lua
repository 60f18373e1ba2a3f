-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S21", title = "The VMM says shared, the guest has not agreed",
  source = "scenarios.md S21; background.md 7.1-7.4 [TALK][1G1][XGUP 0744]",
  trackers = "inode vm folio hyp",
  live = true,
}

-- (i) of the text is the tracker `vm`, (ii) a world that asks the hypervisor, (iii) one that does not.

local function convert(w, page, to)
  if tracker == "vm" then
    return w.vm:set_attributes(page, 1, to)
  end
  return w.vmm:convert(page, 1, to)
end

-- The VMM stores to the pages first: a flag of the folio needs a folio.
local function prepare(w)
  for page = 3, 4 do
    w.vmm:write(page, "image"):expect "0"
    convert(w, page, PRIVATE):expect "0"
    w.guest:write(page, "secret"):expect "0"
  end
end

local function asked()
  say "The conversion asks the hypervisor first, and the page is the guest's: refused, and nothing has changed."
  local w = world { ask_hyp = true }
  prepare(w)
  convert(w, 3, SHARED):expect "EPERM"
  w.file:page(3):has { attr = PRIVATE }
  w.vmm:touch(3):expect "SIGBUS"
  w.guest:read(3):expect "0":reads "secret"
  w:close()
end

local function unasked()
  local w = world { vcpus = 2 }
  prepare(w)

  say "Nobody asks: the VMM's word is taken for it, and stage 2 is not impressed."
  convert(w, 3, SHARED):expect "0"
  if stage == "live" then
    say "(With real processes every refusal is SIGBUS: a signal is the diagnosis, and one userfaultfd gives it.)"
  end
  w.vmm:touch(3):expect { live = "SIGBUS", hyp = "SIGBUS", _ = "SIGSEGV" }
  w.vmm:sys_write(3, 16):expect "EFAULT"
  w.guest:read(3):expect "0":reads "secret"

  say "The kernel itself may only destroy: an errant load takes the page from the guest, zeroed, and its IPA is dead."
  w.kern:load(3):expect "0":reads ""
  w.guest:read(3):expect "EXIT_MEMORY_FAULT"
  convert(w, 3, PRIVATE):expect "0"
  w.guest:resume():expect "EFAULT"

  say "A page that the guest shares of its own will is another matter."
  local guest = w:vcpu(1)
  guest:write(4, "given"):expect "0"
  guest:share(4):expect "EXIT_HYPERCALL"
  convert(w, 4, SHARED):expect "0"
  guest:resume():expect "0"
  w.vmm:read(4):expect "0":reads "given"

  say "And the reverse: the VMM takes a page that the guest uses as a shared ring.  Denial of service, no more."
  convert(w, 4, PRIVATE):expect "0"
  w.vmm:touch(4):expect { hyp = "0", _ = "SIGBUS" }
  guest:read(4):expect "0":reads "given"
  if stage == "sim" then
    say("Faults of the host that cost a hypercall: " .. w.kern:counts().hyp_asked .. ".")
  end
end

function play()
  asked()
  unasked()
end
