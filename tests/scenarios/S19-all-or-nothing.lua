-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S19", title = "Idempotence and mid-range failure",
  source = "scenarios.md S19; guest_memfd.md 3.3 [INPL]",
  live = true,
}

function play()
  local w = world {}

  say "The same conversion twice: the second finds nothing to do."
  w.vmm:write(0, "zero"):expect "0"
  w.vmm:convert(0, 4, PRIVATE):expect "0"
  local before = w.file:hash().value
  w.vmm:convert(0, 4, PRIVATE):expect "0"
  equal(w.file:hash().value, before, "the state of the file")

  say "A pinned page in the middle of a range: nothing of the range changes."
  local h = w.vmm:pin(6, 1, "FOLL_PIN", "O_DIRECT read"):expect "0"
  w.vmm:convert(4, 4, PRIVATE):expect "EAGAIN@6":holder "O_DIRECT read"
  for p = 4, 7 do
    w.file:page(p):has { attr = SHARED }
    w.vmm:touch(p):expect "0"
  end
  w.vmm:unpin(h):expect "0"
  w.vmm:convert(4, 4, PRIVATE):expect "0"
  for p = 4, 7 do
    w.vmm:touch(p):expect "SIGBUS"
  end
end
