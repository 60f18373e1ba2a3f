/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The verbs of scenarios: one table for the Lua bindings, the narration, the
 * backends and fakehyp-scenario(5).
 *
 * To add one: a row here, `sim_ACTOR_VERB()` in src/scenario/sim_*.c, and, when
 * the row says LIVE, `live_ACTOR_VERB()` in src/scenario/live_*.c; the linker
 * misses what is forgotten.  Then `make verbs-page`, which puts it into the manual.
 *
 * X(actor, name, signature, narration, result, stage, live, meaning)
 *
 *   signature  words "name[:type][=default]".  Types: int (the default one; a
 *              page, a gfn, a count), attr (SHARED or PRIVATE), text, handle
 *              (the verdict of the verb that made it), and an actor's class in
 *              lower case (process, guest, file, vm, device, cpu).  A word with
 *              a default may be left out; those after it too.
 *   narration  "{name}" prints an argument, "{page+nr}" the range [page, page + nr).
 *   result     VERDICT, or the class of actor that the verb makes: a refusal
 *              of such a verb is an error of the script.
 *   stage      LIVE: it exists on both stages, and `live` says as what;
 *              NOT_LIVE: `live` says why it exists in simulation only.
 *
 * Numbers are pages unless a name says bytes.  A verdict's word is what a
 * system call of that name would answer: "0" or an errno, for an access also
 * "SIGBUS" or "SIGSEGV", for a guest also its exit.
 */
#ifndef SRC_SCENARIO_VERBS_H
#define SRC_SCENARIO_VERBS_H

#define SC_VERBS_PROCESS(X)                                                                                            \
    X(PROCESS, convert, "page nr attr:attr file:file=0", "convert {page+nr} to {attr}", VERDICT, LIVE,                 \
      "the process asks the daemon for it",                                                                            \
      "KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd.  EAGAIN@n: page n is in use, and the verdict has its holders")   \
    X(PROCESS, convert_raw, "offset_bytes size_bytes attributes flags=0 file:file=0",                                  \
      "convert [{offset_bytes}, +{size_bytes}) bytes, attributes {attributes}, flags {flags}", VERDICT, LIVE,          \
      "the process asks the daemon for it", "the same ioctl with arguments as they are, to be refused")                \
    X(PROCESS, touch, "page mode:text=r view:handle=0", "touch page {page} ({mode})", VERDICT, LIVE,                   \
      "one load or store of the process",                                                                              \
      "one byte is loaded (mode \"r\") or stored (\"w\") at the page's address: 0, SIGBUS or SIGSEGV")                 \
    X(PROCESS, read, "page bytes=16 view:handle=0", "load from page {page}", VERDICT, LIVE, "loads of the process",    \
      "bytes from the start of the page, for :reads(): 0, SIGBUS or SIGSEGV")                                          \
    X(PROCESS, write, "page text:text view:handle=0", "store \"{text}\" to page {page}", VERDICT, LIVE,                \
      "stores of the process", "stores the text at the start of the page: 0, SIGBUS or SIGSEGV")                       \
    X(PROCESS, pin, "page nr=1 kind:text=FOLL_PIN label:text= file:file=0", "{kind} of {page+nr}: {label}", VERDICT,   \
      LIVE, "the daemon takes the references on the process's behalf",                                                 \
      "takes references as GUP does: kind is FOLL_GET, FOLL_PIN or FOLL_LONGTERM; the verdict is a handle for unpin")  \
    X(PROCESS, unpin, "pin:handle", "drop pin {pin}", VERDICT, LIVE, "the daemon drops them",                          \
      "drops the references of a pin")                                                                                 \
    X(PROCESS, unpin_irq, "pin:handle", "drop pin {pin} in an interrupt", VERDICT, NOT_LIVE,                           \
      "the daemon has no interrupts", "the same from where nothing may sleep, as the end of an I/O is")                \
    X(PROCESS, populate, "gfn nr=1 page=-1 bytes=0 view:handle=0", "populate {gfn+nr} from page {page} +{bytes}",      \
      VERDICT, NOT_LIVE, "the daemon does not reach into a process's memory: store the image before the conversion",   \
      "kvm_gmem_populate(): before the VM runs its private memory gets the bytes at `bytes` into the page; page -1: "  \
      "a NULL source, it keeps its own.  0, EINVAL, EFAULT, EDEADLK in place of a deadlock")                           \
    X(PROCESS, mmap, "page=0 nr=0 file:file=0", "mmap {page+nr}", VERDICT, LIVE, "fakehyp_map() in the process",       \
      "maps pages of the file (nr 0: up to its end); the verdict is a handle for the argument `view` of accesses; "    \
      "without one they use the process's first view that has the page")                                               \
    X(PROCESS, munmap, "view:handle", "munmap view {view}", VERDICT, LIVE, "fakehyp_unmap() in the process",           \
      "unmaps a view")                                                                                                 \
    X(PROCESS, sys_read, "page bytes view:handle=0", "read(2) of {bytes} bytes into page {page}", VERDICT, LIVE,       \
      "read(2) from a pipe", "the kernel copies into the buffer there: the word is how many bytes, or EFAULT")         \
    X(PROCESS, sys_write, "page bytes view:handle=0", "write(2) of {bytes} bytes from page {page}", VERDICT, LIVE,     \
      "write(2) to a pipe", "the kernel copies from the buffer there: the word is how many bytes, or EFAULT")          \
    X(PROCESS, punch, "page nr=1 file:file=0", "punch a hole into {page+nr}", VERDICT, LIVE,                           \
      "fakehyp_punch() of the process", "fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)")                       \
    X(PROCESS, fallocate, "mode offset_bytes size_bytes file:file=0",                                                  \
      "fallocate({mode}, {offset_bytes}, {size_bytes})", VERDICT, LIVE, "fakehyp_fallocate() of the process",          \
      "fallocate(2) with arguments as they are")                                                                       \
    X(PROCESS, direct_read, "page nr=1 view:handle=0", "O_DIRECT read into {page+nr}", VERDICT, LIVE,                  \
      "read(2) from a file that was opened with O_DIRECT",                                                             \
      "the kernel pins the buffer for the time of the I/O: the word is how many bytes, or EFAULT")                     \
    X(PROCESS, vmsplice, "page nr=1 view:handle=0", "vmsplice {page+nr} into a pipe", VERDICT, LIVE,                   \
      "vmsplice(2), and the daemon is told of the references",                                                         \
      "pages go into a new pipe, by reference; the verdict is its handle")                                             \
    X(PROCESS, pipe_read, "pipe:handle", "read pipe {pipe}", VERDICT, LIVE, "read(2)",                                 \
      "the kernel copies the pipe's oldest page and drops its reference: 0 with the bytes, OOPS, or EAGAIN: it is "    \
      "empty")                                                                                                         \
    X(PROCESS, mremap, "view:handle", "mremap view {view}", VERDICT, LIVE, "fakehyp_remap()",                          \
      "moves a view; the verdict is the handle of the new one, at the old address nothing is left")                    \
    X(PROCESS, madvise_remove, "page nr=1 view:handle=0", "MADV_REMOVE {page+nr}", VERDICT, LIVE, "madvise(2)",        \
      "punches a hole into the file by the process's address.  Live, the bytes of a private page are not there: "      \
      "nothing "                                                                                                       \
      "happens to them")                                                                                               \
    X(PROCESS, fork, "name:text", "forks {name}", PROCESS, LIVE,                                                       \
      "fork(2); the child maps the views again, at the same addresses",                                                \
      "a child with the same views, whose pages it faults in for itself")                                              \
    X(PROCESS, kill, "", "is killed", VERDICT, LIVE, "SIGKILL", "SIGKILL: its views and pins go")                      \
    X(PROCESS, exit, "", "exits", VERDICT, LIVE, "the process exits; what it held ends with its connection",           \
      "the process ends: its views and pins go")

#define SC_VERBS_GUEST(X)                                                                                              \
    X(GUEST, read, "gfn bytes=16", "load from gfn {gfn}", VERDICT, LIVE, "loads of the guest process",                 \
      "bytes from the start of the page, for :reads(): 0, or the exit that the VMM has to answer before resume() "     \
      "goes on: EXIT_MEMORY_FAULT, EXIT_MMIO, or EFAULT when the IPA is poisoned")                                     \
    X(GUEST, write, "gfn text:text", "store \"{text}\" to gfn {gfn}", VERDICT, LIVE, "stores of the guest process",    \
      "stores the text at the start of the page; ends as read does")                                                   \
    X(GUEST, share, "gfn", "MEM_SHARE gfn {gfn}", VERDICT, LIVE, "the same hypercall",                                 \
      "the hypercall; without `follow` it ends as EXIT_HYPERCALL, and resume() has its result: 0 or "                  \
      "INVALID_PARAMETER")                                                                                             \
    X(GUEST, unshare, "gfn", "MEM_UNSHARE gfn {gfn}", VERDICT, LIVE, "the same hypercall", "as share")                 \
    X(GUEST, call, "number x1=0 x2=0", "hypercall {number}({x1})", VERDICT, LIVE, "the same hypercall",                \
      "any function id; the verdict's value is x0, its word 0 when that is not negative, or SMCCC's name")             \
    X(GUEST, off, "", "PSCI SYSTEM_OFF", VERDICT, LIVE, "the guest's main function returns",                           \
      "the guest switches itself off: EXIT_SYSTEM_EVENT")                                                              \
    X(GUEST, resume, "", "goes on", VERDICT, LIVE, "KVM_RUN once more",                                                \
      "the VMM runs the vCPU again after an exit: ends as the verb that exited does")

#define SC_VERBS_KERN(X)                                                                                               \
    X(KERN, load, "page file:file=0", "load through the direct map from page {page}", VERDICT, LIVE,                   \
      "the daemon's load from its direct map",                                                                         \
      "by errant code, without an exception-table entry: 0 with the bytes that it read, OOPS, EIO for no such page")   \
    X(KERN, copy, "page file:file=0", "copy through the direct map from page {page}", VERDICT, LIVE,                   \
      "the daemon's load under a fault guard", "the same by an instruction of the exception table: 0 or EFAULT")       \
    X(KERN, zeropad, "page file:file=0", "load_unaligned_zeropad() across the end of page {page}", VERDICT, NOT_LIVE,  \
      "the daemon's direct map of a file has its pages in the order of the file, not of their frames",                 \
      "a word of 8 bytes, 4 of them at the end of the page's frame, 4 of the next frame: what faults is read as "      \
      "zeros")                                                                                                         \
    X(KERN, load_hyp, "", "load through the direct map from a frame of the hypervisor's own", VERDICT, NOT_LIVE,       \
      "the daemon's frames of EL2 are no file that it has a direct map of",                                            \
      "by errant code, without an exception-table entry: OOPS")                                                        \
    X(KERN, counts, "", "counts", VERDICT, NOT_LIVE, "the daemon does not show these",                                 \
      "for :has{}: hyp_asked (faults that asked the hypervisor), frames (that hold pages of files)")

/* What the model alone has: its CPUs, devices, the kernel's own references, memory that fails. */
#define SC_VERBS_MODEL(X)                                                                                              \
    X(PROCESS, gup, "page nr=1 kind:text=FOLL_PIN label:text= view:handle=0",                                          \
      "{kind} by address of {page+nr}: {label}", VERDICT, NOT_LIVE, "the real kernel's walk stops for nobody",         \
      "get_user_pages_fast() or pin_user_pages_fast(): the fast walk, then the slow path, with the points of gup; "    \
      "the "                                                                                                           \
      "verdict is a handle for unpin")                                                                                 \
    X(PROCESS, on_cpu, "cpu", "goes on on CPU {cpu}", VERDICT, NOT_LIVE, "the model's CPUs are not the machine's",     \
      "its calls run there from now on: LRU batches and TLBs are a CPU's")                                             \
    X(PROCESS, mce_kill, "early", "PR_MCE_KILL: early {early}", VERDICT, NOT_LIVE,                                     \
      "no memory of the real machine is made to fail",                                                                 \
      "1: SIGBUS as soon as memory fails that it has mapped and written; 0: when it touches it")                       \
    X(PROCESS, signals, "", "looks at its signals", VERDICT, NOT_LIVE,                                                 \
      "no memory of the real machine is made to fail",                                                                 \
      "SIGBUS that it was sent without an access: for :has{}: signals (how many), code of the last one (4 "            \
      "BUS_MCEERR_AR, 5 BUS_MCEERR_AO)")                                                                               \
    X(PROCESS, d_state, "on", "uninterruptible sleep: {on}", VERDICT, NOT_LIVE,                                        \
      "no real process can be put there at will", "1: SIGKILL (EBUSY) has no effect until it is 0 again")              \
    X(KERN, ref, "page kind:text count=1 label:text= file:file=0", "{count} times {kind} of page {page}: {label}",     \
      VERDICT, NOT_LIVE, "the real kernel takes its own",                                                              \
      "references of any kind of background.md 0.3, by the name that refusals give it; the verdict is a handle for "   \
      "put.  ENOENT: a hole")                                                                                          \
    X(KERN, put, "refs:handle count=0", "puts {count} of references {refs}", VERDICT, NOT_LIVE,                        \
      "the real kernel puts its own", "drops that many of them, all with 0")                                           \
    X(KERN, lru_batches, "on", "new folios wait in LRU batches: {on}", VERDICT, NOT_LIVE,                              \
      "the real kernel has them always, for its own folios",                                                           \
      "1: a page that is allocated from now on waits in the batch of the CPU, which holds a reference")                \
    X(KERN, lru, "", "LRU drains so far", VERDICT, NOT_LIVE, "the real kernel's drains are its own",                   \
      "for :has{}: here (lru_add_drain), all (lru_add_drain_all)")                                                     \
    X(KERN, tlb, "mode:text", "TLBs are flushed by {mode}", VERDICT, NOT_LIVE, "the real machine has the way it has",  \
      "\"ipi\": as x86, the unmap waits for a CPU that walks page tables with IRQs off; \"broadcast\": as arm64")      \
    X(KERN, tlb_has, "cpu page file:file=0", "looks whether CPU {cpu} has page {page} in its TLB", VERDICT, NOT_LIVE,  \
      "a real TLB tells nobody", "value: 1 or 0")                                                                      \
    X(KERN, memory_failure, "page action_required=0 file:file=0", "the memory of page {page} fails", VERDICT,          \
      NOT_LIVE, "no memory of the real machine is made to fail",                                                       \
      "memory_failure(), with action_required 1 MF_ACTION_REQUIRED: 0 or an errno; for :has{}: pfn")                   \
    X(KERN, unpoison, "pfn", "unpoisons pfn {pfn}", VERDICT, NOT_LIVE,                                                 \
      "no memory of the real machine is made to fail", "unpoison_memory(): 0 or ENOENT")                               \
    X(DEVICE, map, "process:process page nr=1 iova=0 view:handle=0", "maps {page+nr} at IOVA page {iova}", VERDICT,    \
      NOT_LIVE, "a real device would be needed",                                                                       \
      "VFIO_IOMMU_MAP_DMA of memory of the process: FOLL_LONGTERM pins and entries of the IOMMU's table")              \
    X(DEVICE, unmap, "iova=0 nr=1", "unmaps {nr} pages at IOVA page {iova}", VERDICT, NOT_LIVE,                        \
      "a real device would be needed", "VFIO_IOMMU_UNMAP_DMA of whole mappings; value: how many pages")                \
    X(DEVICE, dma_read, "iova bytes=16", "DMA read at IOVA page {iova}", VERDICT, NOT_LIVE,                            \
      "a real device would be needed", "0 with the bytes, or EFAULT: an IOMMU fault.  Stage 2 is not consulted")       \
    X(DEVICE, dma_write, "iova text:text", "DMA write of \"{text}\" at IOVA page {iova}", VERDICT, NOT_LIVE,           \
      "a real device would be needed", "as dma_read")                                                                  \
    X(WORLD, device, "name:text", "device {name} is assigned", DEVICE, NOT_LIVE, "a real device would be needed",      \
      "a device behind the IOMMU, which has nothing mapped yet")

#define SC_VERBS_FILE(X)                                                                                               \
    X(FILE, page, "page", "page {page}", VERDICT, LIVE, "the daemon's report of the page",                             \
      "for :has{}: attr, allocated, pfn, ref, map, holders (how many), refs (what they add up to)")                    \
    X(FILE, ranges, "", "attribute ranges", VERDICT, LIVE, "the daemon's status",                                      \
      "for :has{}: ranges, shared, private (pages), allocated (pages)")                                                \
    X(FILE, hash, "", "hash of all its state", VERDICT, LIVE, "over the daemon's reports of all pages",                \
      "value: equal before and after a call that changes nothing")                                                     \
    X(FILE, close, "", "the last descriptor is closed", VERDICT, NOT_LIVE,                                             \
      "whoever has passed the descriptor on knows of it, not the daemon",                                              \
      "kvm_gmem_release(): guests lose the memory, the file its bindings and pages")                                   \
    X(FILE, link, "vm:vm", "is linked into VM {vm}", VERDICT, NOT_LIVE,                                                \
      "a guest process takes the files of the VM that created them",                                                   \
      "KVM_LINK_GUEST_MEMFD: that VM may bind the file too")

#define SC_LIBRARY_NOT_LIVE "the library was never merged: it exists in the model only"

/* The guest_memfd library of RFC v2, in a world { library = true }; and policy C. */
#define SC_VERBS_LIBRARY(X)                                                                                            \
    X(FILE, grab, "page accessible=0", "grab page {page}, accessible {accessible}", VERDICT, NOT_LIVE,                 \
      SC_LIBRARY_NOT_LIVE,                                                                                             \
      "guest_memfd_grab_folio(): a safe reference; with 1 its user wants the host to see the page.  A handle for "     \
      "put(); EBUSY after 10 ms, EPERM: the hypervisor refuses")                                                       \
    X(FILE, put, "grab:handle", "put grab {grab}", VERDICT, NOT_LIVE, SC_LIBRARY_NOT_LIVE, "its end")                  \
    X(FILE, make_inaccessible, "page", "make page {page} inaccessible", VERDICT, NOT_LIVE, SC_LIBRARY_NOT_LIVE,        \
      "one user less; without users and unsafe references the page becomes private")                                   \
    X(FILE, make_accessible, "page", "make page {page} accessible", VERDICT, NOT_LIVE, SC_LIBRARY_NOT_LIVE,            \
      "the opposite, if the hypervisor lets the host have it")                                                         \
    X(FILE, counts, "page", "counters of page {page}", VERDICT, NOT_LIVE, SC_LIBRARY_NOT_LIVE,                         \
      "for :has{}: accessible, safe, ref, inaccessible, direct_map, and of the file zaps, restores")                   \
    X(FILE, register, "page", "register a folio_put callback for page {page}", VERDICT, NOT_LIVE,                      \
      "policy C is for simulation", "policy C: 0, or EAGAIN while the page is mapped")

#define SC_VERBS_HYP(X)                                                                                                \
    X(HYP, refuse, "what:text page file:file=0", "refuses {what} of page {page} from now on", VERDICT, NOT_LIVE,       \
      "the hypervisor refuses what its rules refuse", "what: donate, reclaim, teardown, make_shared, make_private")    \
    X(HYP, allow, "what:text page file:file=0", "refuses {what} of page {page} no more", VERDICT, NOT_LIVE,            \
      "the hypervisor refuses what its rules refuse", "the end of refuse()")

#define SC_VERBS_VM(X)                                                                                                 \
    X(VM, set_attributes, "gfn nr attr:attr", "attributes of gfns {gfn+nr}: {attr}", VERDICT, LIVE,                    \
      "fakehyp_set_memory_attributes() of the VMM",                                                                    \
      "KVM_SET_MEMORY_ATTRIBUTES on the VM: the interface where the tracker is vm, ENOTTY where it is not")            \
    X(VM, slot, "slot gfn nr page=0 flags=4 file:file=0", "memslot {slot}: {gfn+nr}, flags {flags}", VERDICT,          \
      NOT_LIVE, "the library has the flags of its own accord",                                                         \
      "KVM_SET_USER_MEMORY_REGION2; flags 4 is GUEST_MEMFD, 1 LOG_DIRTY_PAGES, 2 READONLY; nr 0 deletes")              \
    X(VM, create, "pages flags=3", "a guest_memfd of {pages} pages, flags {flags}", FILE, NOT_LIVE,                    \
      "a world of the live stage has one file", "KVM_CREATE_GUEST_MEMFD: a further file, which no memslot has yet")    \
    X(VM, destroy, "", "is destroyed", VERDICT, LIVE, "fakehyp_vm_destroy()", "the guest ends, its memory is reclaimed")

#define SC_VERBS_WORLD(X)                                                                                              \
    X(WORLD, process, "name:text", "process {name} starts", PROCESS, LIVE,                                             \
      "a process of its own, which is passed the file's descriptor by SCM_RIGHTS",                                     \
      "a further host process, which has the file's descriptor and no view yet")                                       \
    X(WORLD, second_vm, "", "a second VM", VM, NOT_LIVE, "a process of the live stage has one VM",                     \
      "a VM of the same kind with one vCPU, of the same VMM, without memory; its guest is vm:vcpu(0)")                 \
    X(WORLD, follow, "on", "the VMM converts as the guest asks: {on}", VERDICT, LIVE, "the same",                      \
      "1: share, unshare and memory faults of the guest are answered by the conversion that they ask for; 0: they "    \
      "are verdicts of the guest's verbs")                                                                             \
    X(WORLD, advance, "ms", "{ms} ms pass", VERDICT, LIVE, "the runner sleeps",                                        \
      "virtual time passes, waits whose time has come end")                                                            \
    X(WORLD, storm, "page nr rounds", "a storm over {page+nr}, {rounds} rounds", VERDICT, LIVE,                        \
      "threads of the VMM, and a loop of the guest",                                                                   \
      "the VMM converts the pages to private and back, and as the guest asks, while each vCPU and a thread of the "    \
      "VMM load and store there: "                                                                                     \
      "0, or LEAKED (the host read what the guest stored), OUTSIDE (an EAGAIN named a page outside), STARVED; for "    \
      ":has{}: conversions, busy, most_tries, host, host_refused, guest, guest_exits, ms (of real time)")

/* Performed by the processes of the live stage. */
#define SC_ACTOR_VERBS(X)                                                                                              \
    SC_VERBS_PROCESS(X)                                                                                                \
    SC_VERBS_GUEST(X)                                                                                                  \
    SC_VERBS_VM(X)

/* Performed by its runner. */
#define SC_RUNNER_VERBS(X)                                                                                             \
    SC_VERBS_KERN(X)                                                                                                   \
    SC_VERBS_HYP(X)                                                                                                    \
    SC_VERBS_FILE(X)                                                                                                   \
    SC_VERBS_MODEL(X)                                                                                                  \
    SC_VERBS_LIBRARY(X)                                                                                                \
    SC_VERBS_WORLD(X)

#define SC_VERBS(X)                                                                                                    \
    SC_ACTOR_VERBS(X)                                                                                                  \
    SC_RUNNER_VERBS(X)

#endif
