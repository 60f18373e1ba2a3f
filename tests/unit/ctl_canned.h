/* SPDX-License-Identifier: BSD-2-Clause */
/* One answer of each kind, as the daemon gives them. */
#ifndef TESTS_UNIT_CTL_CANNED_H
#define TESTS_UNIT_CTL_CANNED_H

#define CANNED_STATUS                                                                                                  \
    "{\"version\":\"0.1.0\",\"pid\":77,\"socket\":\"/run/f.sock\",\"stage\":\"live\",\"uptime_ns\":3250000000,"        \
    "\"clients\":[{\"id\":1,\"pid\":4242,\"program\":\"vmm\",\"views\":2},"                                            \
    "{\"id\":12,\"pid\":9,\"program\":\"evil\\u001b[31m\",\"views\":0}],"                                              \
    "\"vms\":[{\"id\":1,\"name\":\"demo\",\"hyp\":\"pkvm\",\"protected\":true,\"unshare\":\"consent\",\"policy\":"     \
    "\"D\",\"tracker\":\"inode\",\"bugs\":\"\",\"abi\":13,"                                                            \
    "\"handle\":4096,\"vcpus\":1,\"guest_pid\":4300,\"slots\":[{\"slot\":0,\"gpa\":1073741824,\"size\":2097152,"       \
    "\"gmem\":5,\"offset\":0}]},"                                                                                      \
    "{\"id\":2,\"name\":\"\",\"hyp\":\"pkvm\",\"protected\":false,\"unshare\":\"unilateral\",\"policy\":\"A\","        \
    "\"tracker\":\"vm\",\"bugs\":\"hyp-2021\",\"abi\":5,\"handle\":4097,"                                              \
    "\"vcpus\":0,\"guest_pid\":0,\"slots\":[]}],"                                                                      \
    "\"gmems\":[{\"id\":5,\"vm\":1,\"size\":2097152,\"flags\":3,\"shared_bytes\":4096,\"private_bytes\":2093056,"      \
    "\"allocated_pages\":17,\"ranges\":3}],"                                                                           \
    "\"counts\":{\"clients\":2,\"vms\":2,\"gmems\":1,\"views\":2,\"pins\":0,\"guests\":1,\"frames_used\":40,"          \
    "\"el2_pages\":9,\"tasks\":0,\"fds\":14}}"

#define CANNED_PAGE                                                                                                    \
    "{\"gmem\":5,\"offset\":12288,\"vm\":1,\"gpa\":1073754112,\"attribute\":\"private\",\"allocated\":true,"           \
    "\"pfn\":4660,\"bytes_in\":\"private file\",\"owner\":\"guest 0x1000 gfn 0x40003\",\"host_state\":\"NOPAGE\","     \
    "\"guest_state\":\"OWNED\",\"refused_by\":[\"stage 1\",\"stage 2\"],\"refcount\":1025,\"mapcount\":0,"             \
    "\"holders\":[{\"what\":\"vmm/disk0\",\"kind\":\"FOLL_PIN\",\"count\":1,\"pid\":4242,\"age_ns\":1500000}],"        \
    "\"last_conversion\":{\"to\":\"private\",\"pid\":4242,\"program\":\"vmm\",\"age_ns\":3250000000,\"seq\":42},"      \
    "\"strays\":[{\"pid\":4242,\"thread\":\"virtio-tx\",\"pc\":4198400,\"frames\":[4198400,4198656],\"age_ns\":900,"   \
    "\"addr\":139637976727552}],"                                                                                      \
    "\"history\":[{\"t_ns\":1000000,\"seq\":3,\"text\":\"donated to guest\"},"                                         \
    "{\"t_ns\":2000000000,\"seq\":42,\"text\":\"convert to private: ok\"}]}"

#define CANNED_KERNEL_LOAD "{\"pfn\":524293,\"bytes\":\"00000000000000000000000000000000\",\"reclaimed\":true}"

/* A page that nobody has touched. */
#define CANNED_FRESH_PAGE                                                                                              \
    "{\"gmem\":5,\"offset\":0,\"vm\":null,\"gpa\":null,\"attribute\":\"shared\",\"allocated\":false,\"pfn\":null,"     \
    "\"bytes_in\":\"nowhere\",\"owner\":\"host\",\"host_state\":\"OWNED\",\"guest_state\":\"NOPAGE\",\"refused_by\":[" \
    "],\"refcount\":0,"                                                                                                \
    "\"mapcount\":0,\"holders\":[],\"last_conversion\":null,\"strays\":[],\"history\":[]}"

#define CANNED_AUDIT_CLEAN                                                                                             \
    "{\"ok\":true,\"checked\":{\"files\":2,\"pages\":512,\"views\":1,\"frames\":40},\"problems\":[]}"
#define CANNED_AUDIT_BAD                                                                                               \
    "{\"ok\":false,\"checked\":{\"files\":2,\"pages\":512,\"views\":1,\"frames\":40},"                                 \
    "\"problems\":[\"gmem 5: page 0x3000 is private, its bytes are in the shared file\"]}"

#define CANNED_TRACE                                                                                                   \
    "{\"schema\":1,\"dropped\":0,\"next\":13,\"events\":["                                                             \
    "{\"seq\":11,\"t_ns\":1000000500,\"ev\":\"vm_create\",\"vm\":1,\"a0\":4096},"                                      \
    "{\"seq\":12,\"t_ns\":1250000000,\"ev\":\"convert\",\"vm\":1,\"off\":12288,\"len\":4096,\"rc\":-11,"               \
    "\"note\":\"held by disk0\"}]}"

#endif
