-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "E1", title = "Every order of calls that meet",
  source = "background.md 0.3, 0.6, 2.3, 2.5; guest_memfd.md 1.3, 3.3",
  live = "real processes stop for nobody",
}

function play()
  explore {
    name = "GUP, the end of a pin and a conversion",
    setup = function()
      local w = world {}
      w.vmm:write(3, "three"):expect "0"
      local pin = w.vmm:pin(3, 1, "FOLL_PIN", "O_DIRECT"):expect "0"
      return { gup = w.vmm:start("gup", 3, 1, "FOLL_PIN", "RDMA"), unpin = w.vmm:start("unpin", pin),
               convert = w.vmm:start("convert", 3, 1, PRIVATE) }
    end,
    ends = function(e)
      check(not (e.gup == "0" and e.convert == "0"), "the page is private, and pinned")
    end,
  }
  explore {
    name = "two conversions of ranges that overlap",
    setup = function()
      local w = world {}
      w.vmm:write(3, "three"):expect "0"
      return { first = w.vmm:start("convert", 2, 2, PRIVATE), second = w.vmm:start("convert", 3, 2, SHARED),
               touch = w.vmm:start("touch", 3) }
    end,
    ends = function(e)
      check(e.second == "0" and (e.first == "0" or e.first == "EAGAIN@3" and e.touch == "0"), e.state)
    end,
  }
  explore {
    name = "the end of a VM against a fault and a reclaim",
    setup = function()
      local w = world {}
      w.vmm:convert(3, 1, PRIVATE):expect "0"
      w.guest:write(3, "secret"):expect "0"
      return { destroy = w.vm:start("destroy"), fault = w.vmm:start("touch", 4, "w"), reclaim = w.vmm:start("punch", 3) }
    end,
  }
  explore {
    name = "MEM_UNSHARE by the guest alone against GUP",
    setup = function()
      local w = world { private = true, follow = true, unshare = "unilateral" }
      w.guest:write(3, "three"):expect "0"
      w.guest:share(3):expect "0"
      w.vmm:touch(3, "w"):expect "0"
      return { unshare = w.guest:start("unshare", 3), gup = w.vmm:start("gup", 3, 1, "FOLL_PIN", "RDMA") }
    end,
  }
end
