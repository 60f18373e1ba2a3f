-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S57", title = "Two host CPUs hit the same protected page",
  source = "scenarios.md S57; background.md 8.1; pkvm.md [PKVM]",
  live = "a load of the daemon is one request, and two of them are never under way together",
}

function play()
  local w = world { private = true }
  w.guest:write(3, "secret"):expect "0"

  say "Two CPUs of the host load from the guest's page; EL2 injects an abort into each."
  local first = w.kern:start("load", 3):run_to "host-abort:injected"
  local second = w.kern:start("load", 3):run_to "host-abort:injected"

  say "The first takes the page by force.  The second is told EAGAIN, for it would no longer fault: it just loads again."
  first:finish():expect "0":reads ""
  second:finish():expect "0":reads ""
  w.guest:read(3):expect "EFAULT"

  say "A page of the hypervisor itself cannot be taken: EPERM, and the kernel dies of it."
  w.kern:load_hyp():expect "OOPS"

  say "All orders of the steps of both."
  explore {
    name = "two loads of the host's kernel",
    setup = function()
      local w = world { private = true }
      w.guest:write(3, "secret"):expect "0"
      return { first = w.kern:start("load", 3), second = w.kern:start("load", 3) }
    end,
    ends = function(e) check(e.first == "0" and e.second == "0", e.state) end,
  }
end
