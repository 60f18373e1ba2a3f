-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S9", title = "False positive: 1024 plain references look like a pin",
  source = "scenarios.md S9; background.md 0.3 [PINDOC]",
  policies = "A D",
  live = "a thousand references of the real kernel's own cannot be taken one by one",
}

function play()
  local w = world {}

  say "A page that nobody has mapped, and 1023 buffers of pipes that refer to it."
  w.vmm:fallocate(1, 6 * 4096, 4096):expect "0"
  local pipes = w.kern:ref(6, "pipe buffer", 1023, "pipe"):expect "0"
  w.file:page(6):has { ref = 1 + 1023, map = 0 }

  say "folio_maybe_dma_pinned() begins at 1024: policy A refuses for a pin that nobody has. D refuses for what there is."
  w.vmm:convert(6, 1, PRIVATE):expect "EAGAIN@6":holder "pipe"

  say "One of them goes: now policy A sees no pin, and 1022 users who can still read the page."
  w.kern:put(pipes, 1):expect "0"
  w.file:page(6):has { ref = 1023 }
  w.vmm:convert(6, 1, PRIVATE):expect { A = "0", D = "EAGAIN@6" }:violates { A = "I1" }
  w.kern:put(pipes):expect "0"
  w.vmm:convert(6, 1, PRIVATE):expect "0"
  w.file:page(6):has { attr = PRIVATE, ref = 1 }

  large()
end

function large()
  say "Of a large folio the pincount is exact: thousands of plain references are no pin, and one pin is seen among them."
  local w = world { order = 2 }
  w.vmm:touch(6):expect "0"
  w.file:page(6):has { ref = 4 + 1, map = 1 }
  local pipes = w.kern:ref(5, "pipe buffer", 3000, "pipe"):expect "0"
  local pin = w.vmm:pin(6, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.vmm:convert(4, 4, PRIVATE):expect "EAGAIN@4"
  w.vmm:unpin(pin):expect "0"
  w.vmm:convert(4, 4, PRIVATE):expect { A = "0", D = "EAGAIN@4" }:violates { A = "I1" }
  if policy == "D" then
    say "The offset is that of the folio, or of the range when that begins inside it."
    w.vmm:convert(0, 16, PRIVATE):expect "EAGAIN@4":holder "pipe"
    w.vmm:convert(6, 2, PRIVATE):expect "EAGAIN@6":holder "pipe"
  end
  w.kern:put(pipes):expect "0"
  w.vmm:convert(0, 16, PRIVATE):expect "0"
end
