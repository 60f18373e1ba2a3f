-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S17", title = "load_unaligned_zeropad() over a boundary",
  source = "scenarios.md S17; background.md 4.1, 7.4 [LIB2][XGUP]",
  hyps = "pkvm sw-protected firmware",
  live = "the daemon's direct map of a file has its pages in the order of the file, not of their frames",
}

-- The two variants of Gunyah belong to that hypervisor.
function play()
  local w = world { pages = 2 }

  say "A name ends at the end of a shared page; the frame behind it is a guest's.  The kernel reads names a word at a time."
  w.vmm:write(0, "name"):expect "0"
  w.vmm:write(1, "one"):expect "0"
  local first, second = w.file:page(0).pfn, w.file:page(1).pfn
  equal(second, first + 1, "the frames are neighbours in the direct map")
  w.vmm:convert(1, 1, PRIVATE):expect "0"
  w.guest:write(1, "secret"):expect "0"

  say "Nobody has done anything wrong: the word is the instruction's, and so is the entry in the exception table."
  local v = w.kern:zeropad(0):expect { pkvm = "0", ["sw-protected"] = "0", firmware = "OOPS" }
  if hyp == "pkvm" then
    v:reads "\0\0\0\0\0\0\0\0"
    w.guest:read(1):expect "0":reads "secret"
  elseif hyp == "sw-protected" then
    say "Without a hypervisor the word has four bytes of the secret, which the name's reader does not look at."
    v:reads "\0\0\0\0secr":violates "I9"
  else
    say "Where an access to private memory is fatal, this harmless one is: only a hole in the direct map would help."
    v:violates "machine check"
  end
end
