-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S20", title = "Bad-argument table",
  source = "scenarios.md S20; guest_memfd.md 1.3 [INPL][NEXT]",
  live = true,
}

-- Of what the scenario's text lists three arguments cannot be put into a message of ours and so cannot be wrong in it: a
-- pointer that the kernel cannot read (EFAULT), reserved fields that are not 0 (EINVAL), a descriptor of another kind
-- (ENOTTY).  S53 has the ENOTTY of the wrong interface.
function play()
  local w = world {}
  local page, size = 4096, 16 * 4096

  w.vmm:write(2, "two"):expect "0"
  w.vmm:convert(4, 4, PRIVATE):expect "0"
  local before = w.file:hash().value

  local function refused(offset, bytes, attributes, flags)
    w.vmm:convert_raw(offset, bytes, attributes, flags or 0):expect "EINVAL"
    equal(w.file:hash().value, before, "the state of the file")
  end

  say "Ranges that are none: empty, not of whole pages, past the end of the numbers."
  refused(0, 0, PRIVATE)
  refused(1, page, PRIVATE)
  refused(page, page + 1, PRIVATE)
  refused(0, 1, PRIVATE)
  refused(-page, 2 * page, PRIVATE)
  refused(page, -page, PRIVATE)

  say "Ranges that the file does not have: from its end on, and across it."
  refused(size, page, PRIVATE)
  refused(size + page, page, PRIVATE)
  refused(size - page, 2 * page, PRIVATE)
  refused(0, size + page, SHARED)

  say "Attributes and flags that there are not."
  refused(0, page, 1)
  refused(0, page, PRIVATE | 4)
  refused(0, page, PRIVATE | 1 << 63)
  refused(0, page, PRIVATE, 1)
  refused(0, page, SHARED, 2)

  say "Nothing of this has cost the file anything."
  w.vmm:read(2, 3):expect "0":reads "two"
  w.vmm:convert(0, 16, SHARED):expect "0"
  w.vmm:convert(0, 16, PRIVATE):expect "0"

  say "The VM goes, its file stays: a conversion is the file's."
  w.vm:destroy():expect "0"
  w.vmm:convert(0, 16, SHARED):expect "0"
  w.vmm:touch(2):expect "0"
  w.vmm:convert(2, 1, PRIVATE):expect "0"
  w.vmm:touch(2):expect "SIGBUS"
  w.vmm:convert_raw(size, page, PRIVATE):expect "EINVAL"
end
