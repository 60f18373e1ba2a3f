-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S8", title = "vmsplice defeats policy A",
  source = "scenarios.md S8; background.md 0.3, 6.2 [XGUP 0752]",
  policies = "A B C D",
  live = true,
}

function play()
  local w = world {}

  say "A page goes into a pipe and is unmapped: no PTE, no pin, and yet a reference."
  w.vmm:write(5, "before"):expect "0"
  local pipe = w.vmm:vmsplice(5):expect "0"
  w.vmm:munmap(w.view):expect "0"
  w.file:page(5):has { attr = SHARED, ref = 2, map = 0, holders = 1 }

  say "Policy A looks for mappings and pins, and sees none.  The others count."
  w.vmm:convert(5, 1, PRIVATE)
    :expect { A = "0", B = "EBUSY", C = "NONE_SHARED", D = "EAGAIN@5" }
    :holder { B = "vmsplice", D = "vmsplice" }
    :violates { A = "I1" }

  if policy == "A" then
    admitted(w, pipe)
  else
    refused(w, pipe)
  end
end

-- The verdict "policy A admitted a conversion with a live reference" is one; its consequences are the stage's.
function admitted(w, pipe)
  w.guest:write(5, "secret"):expect "0"
  if stage == "sim" then
    say "Whoever reads the pipe makes the kernel load from the guest's page: pKVM takes it from the guest, zeroed."
    w.vmm:pipe_read(pipe):expect "0":reads ""
    w.guest:read(5):expect "EFAULT"
  else
    say "The pipe has the frame of before the conversion, which is no guest memory any more: stage 2 holds."
    w.vmm:pipe_read(pipe):expect "0":reads "before"
    w.guest:read(5):expect "0":reads "secret"
  end
end

function refused(w, pipe)
  say "The pipe is read, and the page is free to go."
  w.vmm:pipe_read(pipe):expect "0":reads "before"
  w.vmm:convert(5, 1, PRIVATE):expect "0"
  w.guest:read(5):expect "0":reads "before"
end
