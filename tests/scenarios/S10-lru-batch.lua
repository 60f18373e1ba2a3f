-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S10", title = "A page in a CPU's lru_add batch",
  source = "scenarios.md S10; guest_memfd.md 3.3 [INPL mail2/0016]",
  live = "the real kernel's batches are of its own folios, and nobody can ask for one",
}

-- The merged helper drains this CPU's batches first, then all CPUs', each once in a call and only if the count is wrong.
local w, before

local function drains(here, all)
  local now = w.kern:lru()
  equal(now.here - before.here, here, "drains of this CPU's batches")
  equal(now.all - before.all, all, "drains of all CPUs' batches")
  before = now
end

local function allocate(page, cpu)
  w.vmm:on_cpu(cpu):expect "0"
  w.vmm:fallocate(1, page * 4096, 4096):expect "0"
  w.vmm:on_cpu(0):expect "0"
  w.file:page(page):has { ref = 2, map = 0, holders = 1 }
end

function play()
  w = world {}
  w.kern:lru_batches(1):expect "0"
  before = w.kern:lru()

  say "Page 7 was allocated on CPU 1 and waits in its batch, which holds a reference."
  allocate(7, 1)
  w.vmm:convert(7, 1, PRIVATE):expect "0"
  drains(1, 1)
  w.file:page(7):has { attr = PRIVATE, ref = 1 }

  say "In the batch of the CPU that converts: the others are not disturbed."
  allocate(8, 0)
  w.vmm:convert(8, 1, PRIVATE):expect "0"
  drains(1, 0)

  say "Two such pages in one call: it drains once."
  allocate(2, 1)
  allocate(3, 2)
  w.vmm:convert(2, 2, PRIVATE):expect "0"
  drains(1, 1)

  say "A batch and a plain reference: it drains once, in vain."
  allocate(4, 1)
  local pipe = w.kern:ref(4, "FOLL_GET", 1, "vmsplice"):expect "0"
  w.vmm:convert(4, 1, PRIVATE):expect "EAGAIN@4":holder "vmsplice"
  drains(1, 1)
  w.file:page(4):has { attr = SHARED, ref = 2 }
  w.kern:put(pipe):expect "0"
  w.vmm:convert(4, 1, PRIVATE):expect "0"
  drains(0, 0)

  say "A batch and a pin: refused at once, and no CPU is disturbed for it."
  allocate(5, 1)
  local pin = w.vmm:pin(5, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.vmm:convert(5, 1, PRIVATE):expect "EAGAIN@5":holder "O_DIRECT read"
  drains(0, 0)
  w.vmm:unpin(pin):expect "0"
  w.vmm:convert(5, 1, PRIVATE):expect "0"
  drains(1, 1)

  say "To shared nobody looks at references."
  allocate(6, 1)
  w.vmm:convert(0, 16, SHARED):expect "0"
  drains(0, 0)
end
