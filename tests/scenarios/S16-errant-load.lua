-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S16", title = "Errant kernel access through the direct map",
  source = "scenarios.md S16; background.md 4.1, 7.4, 8.1 [PKVM][LIB2]",
  hyps = "pkvm sw-protected firmware",
  live = true,
}

-- The two variants of Gunyah, with a hole in the direct map and without, belong to that hypervisor.  "sw-protected" is
-- the contrast: with nobody below the kernel an errant access is no error at all.  That the bytes were a guest's secret
-- is known in simulation only (I9), where each page remembers who wrote it.

local function pkvm_of_2021()
  say "In 2021 EL2 knew no better than to panic: the whole machine stands still."
  local w = world { private = true, bugs = "hyp-2021" }
  w.guest:write(3, "secret"):expect "0"
  w.kern:load(3):expect "OOPS":violates "EL2 panic: host access to protected memory"
end

local function pkvm(w)
  say "Through the exception table (copy_from_kernel_nofault() and its kind): EL2 injects an abort, EL1 makes an errno of it."
  w.kern:copy(3):expect "EFAULT"
  w.guest:read(3):expect "0":reads "secret"

  say "A buggy driver just loads.  EL1 finds no fixup and takes the page from the guest: zeroed, and its IPA is dead."
  w.kern:load(3):expect "0":reads ""
  w.guest:read(3):expect "EFAULT"

  say "The host lives, and so does the guest's other memory; the VMM may decide to end the VM."
  w.kern:load(3):expect "0":reads ""
  w:vcpu(1):write(4, "four"):expect "0"
  w:vcpu(1):read(4):expect "0":reads "four"
  w.vmm:touch(5):expect "SIGBUS"
  w.vm:destroy():expect "0"
  -- A daemon whose EL2 has panicked plays no further scenario.
  if stage == "sim" then
    pkvm_of_2021()
  end
end

local function sw_protected(w)
  say "Nobody is below the kernel: it reads the guest's secret, and nothing tells."
  local v = w.kern:load(3):expect "0":reads "secret"
  if stage == "sim" then
    v:violates "I9"
  end
  w.guest:read(3):expect "0":reads "secret"
end

local function firmware(w)
  say "One errant access is the end of the host: everything on it stands still."
  w.kern:load(3):expect "OOPS":violates "machine check"
  w.vmm:convert(3, 1, SHARED):expect "EIO"
  w.vmm:touch(5):expect "SIGBUS"
end

function play()
  local w = world { private = true, vcpus = 2 }
  w.guest:write(3, "secret"):expect "0"
  if hyp == "pkvm" then
    pkvm(w)
  elseif hyp == "sw-protected" then
    sw_protected(w)
  else
    firmware(w)
  end
end
