-- SPDX-License-Identifier: BSD-2-Clause
scenario {
  id = "S48", title = "Fault storm",
  source = "scenarios.md S48; background.md 2.5 [KSELF]",
  live = true,
}

function play()
  local w = world { pages = 512, vcpus = 4 }

  say "Four vCPUs and a thread of the VMM touch 512 pages; the VMM converts all of them a hundred times, both ways."
  local storm = w:storm(0, 512, 100 * repeats):expect "0"
  equal(storm.conversions, 200 * repeats, "conversions that succeeded, with as many tries as it took")
  check(storm.guest > 0 and storm.host_refused > 0, "both sides were at it")

  say("EAGAIN answered " .. storm.busy .. " times, always with an offset of the range; most tries of one conversion: " ..
      storm.most_tries .. ".")
end
