/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libfakehyp: a VMM's and a guest's side of fakehypd.
 *
 * A VMM connects, creates a VM and a guest_memfd, maps it, binds it to the
 * VM's guest physical address space (IPA), starts a guest and runs its vCPUs,
 * as it would with KVM.  What is private is out of its reach: a load or store
 * answers SIGBUS (BUS_ADRERR, si_addr exact), a system call EFAULT.
 *
 * Functions return 0 (or a documented positive value) on success and a
 * negative errno on failure; fakehyp_last_error() then explains it and names
 * the remedy.  A failing call changes nothing, with the exception of a call that
 * was not answered (-ETIMEDOUT, -ECONNRESET).  Unless a function says
 * otherwise it blocks for one round trip to the daemon, may be called from any
 * thread but not from a signal handler, and fails, besides what it lists, with
 *   -ECONNRESET  the daemon is gone (all its objects with it), or this program closed
 *                the descriptors of the connection,
 *   -EIO         the handle is used in a process that forked from its owner,
 *   -ETIMEDOUT   no answer within 30 s (FAKEHYP_TIMEOUT_MS sets another limit);
 *                the daemon may still carry out what was asked,
 *   -ENOENT      the daemon does not know the object any more,
 *   -EPROTO      library and daemon are not of one release,
 *   -EMFILE      no file descriptor left; -ENFILE: in the system,
 *   -EMSGSIZE    a name or label is longer than a message can be (96 KiB),
 *   -ENOMEM      out of memory.
 * Sizes, offsets and addresses are in bytes; "page" is 4096 bytes.  An out
 * parameter that is a pointer is NULL after a failure.
 *
 * Handles belong to the caller until the function that frees them, or until
 * fakehyp_disconnect(), which frees all of its connection.  A handle must not
 * be freed while another thread uses it.
 *
 * What guest_memfd, conversion and KVM_RUN answer is what Linux does
 * (virt/kvm/guest_memfd.c and Documentation/virt/kvm/api.rst with in-place
 * conversion); the guest's hypercalls are pKVM's
 * (Documentation/virt/kvm/arm/hypercalls.rst).
 */
#ifndef FAKEHYP_FAKEHYP_H
#define FAKEHYP_FAKEHYP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define FAKEHYP_PAGE_SIZE 4096u

struct fakehyp; /* a connection */
struct fakehyp_vm;
struct fakehyp_gmem; /* a guest_memfd */
struct fakehyp_pin;  /* an explicit reference to pages, as GUP takes it */
struct fakehyp_vcpu;
struct fakehyp_guest; /* inside a guest: the vCPU that runs this function */

/* Version of the library, "major.minor.patch". */
const char *fakehyp_version(void);

/*
 * Text for the last failure in this thread: what was wrong, who holds what,
 * what to do.  Never NULL; valid until the next failure in this thread.
 */
const char *fakehyp_last_error(void);

/* ---- connection ---------------------------------------------------------------------------------------------- */

/*
 * Connects to the daemon at `socket_path` ("@name": an abstract socket).  NULL:
 * $FAKEHYP_SOCKET if set, else starts a private fakehypd ($FAKEHYP_DAEMON, the
 * installed one, or from PATH) that ends with its last connection; further
 * connections with NULL, in this process and in those that fork from it, share it.
 * Starts one thread, which blocks all signals.  *out: fakehyp_disconnect().
 * Also installs fork handlers: a child has no views and no connection.
 *   -ENOENT        no socket of that name
 *   -ECONNREFUSED  nobody listens at it
 *   -EACCES        it is another user's
 *   -ENAMETOOLONG  the name has more than 107 bytes
 *   -EPROTO        another protocol version, or fakehypd could not be started
 *   -ETIMEDOUT     also when a fakehypd that was started does not become ready
 *   -EAGAIN        no further thread
 *   and what else connect(2) says of a path, such as -ENOTDIR or -EPROTOTYPE
 */
int fakehyp_connect(const char *socket_path, struct fakehyp **out);

/*
 * Closes the connection and frees it with all its handles: VMs are destroyed and
 * their guests reaped (at most 2 s each, then killed), pins dropped, views
 * unmapped.  NULL is ignored.  In a child of fork it only frees memory.
 */
void fakehyp_disconnect(struct fakehyp *fh);

/* True when the daemon announced the capability ("stage:live", "hyp:pkvm", ...). No round trip. */
bool fakehyp_has_capability(const struct fakehyp *fh, const char *name);

/* A descriptor that is readable (POLLIN) while an event waits.  Owned by the connection; only to poll. */
int fakehyp_event_fd(const struct fakehyp *fh);

struct fakehyp_event {
    /*
     * "converted", "guest-exited", "stray-access", "late-agent" from the daemon;
     * "disconnected": it is gone; "lost": size events were dropped, the oldest of 256.
     */
    char kind[24];
    uint64_t vm, gmem;     /* ids, 0 where they do not apply */
    uint64_t offset, size; /* in the guest_memfd */
    char text[200];        /* for people */
};
/* Takes the next event without blocking and without a round trip: 1, 0 when there is none, -EIO in a child of fork. */
int fakehyp_next_event(struct fakehyp *fh, struct fakehyp_event *event);

/*
 * Asks the daemon for a report as JSON text: "status", "page", "audit",
 * "trace", "ptdump", "capabilities" (see fakehypctl(1)), "kernel-load" (what a
 * load from the page by errant kernel code leads to: a guest may lose it),
 * "kernel-copy" (the same by an instruction of the exception table).  gmem and
 * offset: the page of "page" and of the last two; gmem may be NULL for the
 * others.  The caller frees *json.
 *   -EINVAL  unknown report
 *   -ENOENT  no such page or object
 *   -ENXIO   "ptdump": the VM has no table before its first run
 *   -ERANGE  "ptdump": begins beyond the IPA space
 *   -EFAULT  "kernel-copy": stage 2 refuses; nothing has changed
 *   -EPERM   "kernel-load": the kernel would Oops
 */
int fakehyp_query(struct fakehyp *fh, const char *what, struct fakehyp_gmem *gmem, uint64_t offset, char **json);

struct fakehyp_query_args {
    const char *what;
    uint64_t vm;   /* with by_gpa: whose gpa; "trace": whose events, unless any; "ptdump": whose table, 0: the host's */
    uint64_t gmem; /* "page" without by_gpa: id of the guest_memfd */
    uint64_t offset; /* "page" without by_gpa: in that file */
    uint64_t gpa;    /* "page" with by_gpa; "ptdump": where to begin */
    uint64_t since;  /* "trace": the first sequence number wanted */
    uint32_t limit;  /* the most "trace" events (0: all that are kept) or "ptdump" runs (0: as many as fit) wanted */
    bool by_gpa;     /* "page": named by (vm, gpa), not by (gmem, offset) */
    bool any;        /* "trace": events of every VM */
    bool state;      /* "ptdump": page states, output addresses and annotations, which end a run, too */
};
/* fakehyp_query() for objects that this process has no handle of: they are named by their ids.  Same errors. */
int fakehyp_query_raw(struct fakehyp *fh, const struct fakehyp_query_args *args, char **json);
/* The "page" report of the page under an address in a view.  -EFAULT: no view of this connection. */
int fakehyp_query_address(struct fakehyp *fh, const volatile void *addr, char **json);

/* ---- VM ------------------------------------------------------------------------------------------------------- */

enum fakehyp_unshare_mode {
    FAKEHYP_UNSHARE_CONSENT = 0,    /* MEM_UNSHARE waits for the VMM's conversion (Android's pKVM) */
    FAKEHYP_UNSHARE_UNILATERAL = 1, /* MEM_UNSHARE takes the page at once (upstream pKVM) */
};

struct fakehyp_vm_config {
    const char *hyp;  /* NULL or "pkvm"; "sw-protected", "firmware" */
    const char *name; /* for reports; may be NULL */
    enum fakehyp_unshare_mode unshare_mode;
    bool unprotected;  /* memory is shared with the VM, not donated */
    uint32_t ipa_bits; /* width of a guest physical address; 0: 40 */
    /* Which of the designs that were proposed runs the VM's files; 0 and NULL: what was merged. */
    const char *policy;  /* of conversions to private: "D" (default), "A" or "B" */
    const char *tracker; /* where it is kept what is shared: "inode" (default), "vm", "folio" or "hyp" */
    const char *bugs;    /* mistakes of older versions to repeat, separated by commas */
    uint32_t abi;        /* 5: `flags` of a conversion are the content modes of version 5 of the series */
    bool ask_hyp;        /* a conversion to shared asks the hypervisor first: -EPERM for what the guest keeps */
};

/*
 * KVM_CREATE_VM.  config is copied; NULL: all defaults.
 *   -EINVAL  unknown hypervisor, unshare mode, policy, tracker, bug or abi, ipa_bits not 0 and not 32..40
 *   -EOPNOTSUPP  a policy that exists in simulation only (C, E)
 *   -ENOMEM  no VM slot left (255)
 */
int fakehyp_vm_create(struct fakehyp *fh, const struct fakehyp_vm_config *config, struct fakehyp_vm **out);
/*
 * Kills the guest, reclaims and zeroes its memory, reaps the guest process (at
 * most 2 s more) and frees the handle and those of its vCPUs, also when it
 * fails.  Its guest_memfds live on.  NULL is ignored.
 */
int fakehyp_vm_destroy(struct fakehyp_vm *vm);
uint64_t fakehyp_vm_id(const struct fakehyp_vm *vm);

/* ---- guest_memfd ---------------------------------------------------------------------------------------------- */

#define FAKEHYP_GMEM_MMAP (UINT64_C(1) << 0)        /* GUEST_MEMFD_FLAG_MMAP */
#define FAKEHYP_GMEM_INIT_SHARED (UINT64_C(1) << 1) /* GUEST_MEMFD_FLAG_INIT_SHARED */

/*
 * KVM_CREATE_GUEST_MEMFD.  Nothing is allocated before it is touched.
 * *out: fakehyp_gmem_close().
 *   -EINVAL  unknown flag; size 0, not a multiple of the page, or negative as a loff_t
 */
int fakehyp_gmem_create(struct fakehyp_vm *vm, uint64_t size, uint64_t flags, struct fakehyp_gmem **out);
/*
 * A handle for a guest_memfd whose descriptor came from another process.  fd
 * stays the caller's, the handle has a duplicate.
 *   -EBADF   no descriptor
 *   -EINVAL  not a guest_memfd of this daemon
 */
int fakehyp_gmem_import(struct fakehyp *fh, int fd, struct fakehyp_gmem **out);
/* Frees the handle.  Views and memslots outlive it, as they do with the kernel's descriptor.  NULL is ignored. */
void fakehyp_gmem_close(struct fakehyp_gmem *gmem);
/* The descriptor, owned by the handle: to pass on with SCM_RIGHTS.  Close-on-exec. */
int fakehyp_gmem_fd(const struct fakehyp_gmem *gmem);
uint64_t fakehyp_gmem_id(const struct fakehyp_gmem *gmem);
uint64_t fakehyp_gmem_size(const struct fakehyp_gmem *gmem);

/*
 * mmap(MAP_SHARED) of a range that may mix shared and private pages: a view.
 * hint: NULL lets the kernel choose, otherwise the address (as
 * MAP_FIXED_NOREPLACE).  prot: PROT_NONE or PROT_READ and PROT_WRITE.  The view
 * may reach beyond the end of the file, where a touch is SIGBUS.  It ends with
 * fakehyp_unmap(); a plain munmap() is safe, but the daemon goes on listing it
 * until the process has another view in its place.
 * At the first view a SIGBUS handler that explains stray accesses is installed,
 * if SIGBUS has its default action (FAKEHYP_SIGBUS=0: never).
 *   -EINVAL  hint, length or offset not a multiple of the page; length 0; unknown protection
 *   -EPERM   PROT_EXEC, or userfaultfd is refused (the text names the remedy)
 *   -ENODEV  the file was created without FAKEHYP_GMEM_MMAP
 *   -EEXIST  something is mapped at hint
 *   -ENOMEM  vm.max_map_count or the address space is used up
 *   -EOPNOTSUPP  the kernel's userfaultfd cannot do shared memory
 */
int fakehyp_map(struct fakehyp_gmem *gmem, void *hint, size_t length, int prot, uint64_t offset, void **out);
/*
 * munmap of views or parts of them.  What of the range is no view of this
 * connection is left alone.  Works on after the daemon is gone.
 *   -EINVAL  address or length not a multiple of the page; length 0
 *   -ENOMEM  vm.max_map_count does not allow the hole; parts before it are unmapped
 */
int fakehyp_unmap(struct fakehyp *fh, void *addr, size_t length);
/*
 * mremap(MREMAP_MAYMOVE) of one whole view: shrinks it in place; growing moves
 * it, and sets the protection that fakehyp_map() was given.
 *   -EINVAL  not multiples of the page; new length 0
 *   -EFAULT  [addr, addr + old_length) is not exactly one view
 *   and the errors of fakehyp_map()
 */
int fakehyp_remap(struct fakehyp *fh, void *addr, size_t old_length, size_t new_length, void **out);

#define FAKEHYP_SHARED UINT64_C(0)
#define FAKEHYP_PRIVATE (UINT64_C(1) << 3) /* KVM_MEMORY_ATTRIBUTE_PRIVATE */

/* struct kvm_memory_attributes2. */
struct fakehyp_memory_attributes2 {
    uint64_t offset, size; /* in the file, multiples of the page */
    uint64_t attributes;   /* FAKEHYP_SHARED or FAKEHYP_PRIVATE */
    uint64_t flags;        /* 0 */
    uint64_t error_offset; /* out: first busy page on -EAGAIN, start of the range on -ENOMEM; otherwise untouched */
    uint64_t reserved[11]; /* 0 */
};

/* A reference that stood in the way of the last failed conversion in this thread. */
struct fakehyp_holder {
    char what[48];   /* label of the pin, or process */
    char kind[32];   /* "FOLL_PIN", "FOLL_GET", "FOLL_PIN|FOLL_LONGTERM" */
    uint64_t offset; /* of the page in the file */
    uint32_t count;  /* references */
    pid_t pid;
    uint64_t age_ns;
};

/*
 * KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd: converts a range, all of it or
 * nothing, contents kept.  A range that is wholly in that state already is a
 * success without further checks.  Order of checks as in the kernel:
 *   -EINVAL  flags (but those of abi 5) or reserved not 0, unknown attribute bit, size 0 or offset + size
 *            wraps, unaligned, beyond the end of the file
 *   -ENOMEM  also when the guest's vm.max_map_count does not allow more scattered pages
 *   -EAGAIN  to private and a page is in use: error_offset says which,
 *            fakehyp_last_holders() who holds it; drop the reference and try again
 *   -EBUSY   policy B: the page is in use, and was for 10 ms
 *   -EPERM   ask_hyp, to shared: the hypervisor keeps the page at error_offset for the guest
 *   -EOPNOTSUPP  abi 5: the hypervisor has no such content mode in this direction
 *   -ENOTTY  what is shared is kept by the VM: fakehyp_set_memory_attributes()
 *   -ETIMEDOUT  a guest process that has the range mapped does not answer within
 *            2 s (stopped?): nothing changed, try again
 */
int fakehyp_set_memory_attributes2(struct fakehyp_gmem *gmem, struct fakehyp_memory_attributes2 *attributes);
/* The same in short; error_offset may be NULL and is set on -EAGAIN, -ENOMEM, -EBUSY and -EPERM only. */
int fakehyp_convert(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t size, uint64_t attributes,
                    uint64_t *error_offset);
/*
 * KVM_SET_MEMORY_ATTRIBUTES on the VM, [address, address + size) in guest
 * physical addresses: the interface where files are tracked by "vm", and
 * fakehyp_set_memory_attributes2() where they are not; the other one answers
 * -ENOTTY.  The files that the VM created and bound there are converted, one after
 * the other.  Blocking.
 *   -ENOTTY, -EINVAL (as above, and beyond the IPA space), -ENOMEM, -EAGAIN, -EBUSY
 */
int fakehyp_set_memory_attributes(struct fakehyp_vm *vm, uint64_t address, uint64_t size, uint64_t attributes);
/* Holders that this thread's last conversion named (none after a success); returns how many, copies up to max.  No
 * round trip. */
size_t fakehyp_last_holders(struct fakehyp_holder *holders, size_t max);

/*
 * fallocate(2): mode FALLOC_FL_KEEP_SIZE allocates, with FALLOC_FL_PUNCH_HOLE it
 * frees; neither changes what is private, and no reference prevents it.
 *   -EINVAL      negative or unaligned, length 0, allocation beyond the end of the file
 *   -EFBIG       offset + length exceeds the largest loff_t
 *   -EOPNOTSUPP  any other mode
 */
int fakehyp_fallocate(struct fakehyp_gmem *gmem, int mode, int64_t offset, int64_t length);
/* fakehyp_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE). */
int fakehyp_punch(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t length);

/* ---- references ------------------------------------------------------------------------------------------------ */

enum fakehyp_pin_kind {
    FAKEHYP_FOLL_GET = 0,      /* get_user_pages: refcount + 1 (vmsplice) */
    FAKEHYP_FOLL_PIN = 1,      /* pin_user_pages: refcount + 1024 (O_DIRECT) */
    FAKEHYP_FOLL_LONGTERM = 2, /* pin_user_pages(FOLL_LONGTERM) (VFIO, RDMA, io_uring buffers) */
};
/*
 * Takes references to shared pages, as a device or system call of this program
 * would.  label: who, for reports; may be NULL.  *out: fakehyp_unpin().
 *   -EINVAL  unknown kind, length 0, unaligned
 *   -EFAULT  a page is private or beyond the end of the file
 */
int fakehyp_pin(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t length, enum fakehyp_pin_kind kind,
                const char *label, struct fakehyp_pin **out);
/* Drops the references and frees the handle, also when it fails.  NULL is ignored. */
int fakehyp_unpin(struct fakehyp_pin *pin);

/* ---- memslots and vCPUs ---------------------------------------------------------------------------------------- */

/*
 * KVM_SET_USER_MEMORY_REGION2 with KVM_MEM_GUEST_MEMFD: binds
 * [gmem_offset, gmem_offset + size) of the file to [gpa, gpa + size).  size 0
 * deletes the slot; gmem may then be NULL.  The VM keeps the file.
 *   -EINVAL  unaligned, beyond the file, file of another VM or
 *            connection, change of a slot that exists
 *   -EEXIST  overlaps another slot in IPA, or another binding in the file
 *   -EFAULT  ends beyond the VM's IPA space (arm64's errno for it)
 *   -EPERM   deletes a slot of a protected VM that has run: what is donated cannot come back
 */
int fakehyp_set_memory_region(struct fakehyp_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size,
                              struct fakehyp_gmem *gmem, uint64_t gmem_offset);

/*
 * KVM_CREATE_VCPU; indices count from 0.  The handle lives as long as the VM's.
 *   -EEXIST  the VM has this vCPU
 *   -EINVAL  index not the next one, or above 63
 *   -EBUSY   the guest runs already
 */
int fakehyp_vcpu_create(struct fakehyp_vm *vm, uint32_t index, struct fakehyp_vcpu **out);

/* Exit reasons, with KVM's numbers. */
#define FAKEHYP_EXIT_HYPERCALL 3
#define FAKEHYP_EXIT_MMIO 6
#define FAKEHYP_EXIT_SYSTEM_EVENT 24
#define FAKEHYP_EXIT_MEMORY_FAULT 39

#define FAKEHYP_MEMORY_EXIT_FLAG_PRIVATE (UINT64_C(1) << 3)
#define FAKEHYP_SYSTEM_EVENT_SHUTDOWN 1 /* data: what the guest function returned */
#define FAKEHYP_SYSTEM_EVENT_CRASH 3    /* the guest process ended before its main returned; data: its wait status */

/* struct kvm_run, as far as it applies. */
struct fakehyp_run {
    uint32_t exit_reason;
    union {
        struct {
            uint64_t flags, gpa, size;
        } memory_fault;
        struct {
            uint64_t nr;      /* SMCCC function id */
            uint64_t args[3]; /* x1..x3 */
            uint64_t ret;     /* in: x0 of a call that is the VMM's to answer */
        } hypercall;
        struct {
            uint64_t phys_addr; /* IPA of the access; before Linux 5.18 of its page */
            bool is_write;
        } mmio;
        struct {
            uint32_t type;
            uint64_t data;
        } system_event;
    };
};

/*
 * KVM_RUN: lets the vCPU go on until it needs the VMM.  0: see the run record.
 * timeout_ms: how long to wait for that, in milliseconds; -1: no limit.  After a
 * HYPERCALL exit it delivers run->hypercall.ret to the guest, once.
 *   -EFAULT     with exit_reason MEMORY_FAULT: the guest's access does not match the
 *               page's state (convert and run again); with exit_reason 0 the IPA is
 *               dead: its page was force-reclaimed (hole punch, errant kernel access),
 *               and pKVM lets no other take its place
 *   -ETIMEDOUT  timeout_ms passed; the vCPU goes on, run again to wait on
 *   -EBUSY      another thread runs this vCPU
 *   -ENOENT     no guest was started
 * After any other error exit_reason is 0.  An MMIO exit (an IPA without a memslot)
 * cannot be answered in this version: the access comes back at the next run,
 * unless a memslot is there by then.  After a SYSTEM_EVENT exit the guest is at
 * its end, and each further run answers the same.
 */
int fakehyp_vcpu_run(struct fakehyp_vcpu *vcpu, int timeout_ms);
/* The run record, owned by the vCPU: to read and write between runs. */
struct fakehyp_run *fakehyp_vcpu_state(struct fakehyp_vcpu *vcpu);
/*
 * As fakehyp_vcpu_run(), but a MEM_SHARE, MEM_UNSHARE or MEMORY_FAULT exit in the
 * range of gmem, which begins at gpa_of_gmem, is answered by the conversion that
 * it asks for; returns at any other exit.  A conversion that is refused
 * (-EAGAIN) is left to the guest: its hypercall answers INVALID_PARAMETER, its
 * access faults again.  -EFAULT also when one fault comes back 100 times, for
 * instance since its conversion is refused (fakehyp_last_holders() has who holds the
 * page); further the errors of fakehyp_set_memory_attributes2().
 */
int fakehyp_vcpu_run_converting(struct fakehyp_vcpu *vcpu, struct fakehyp_gmem *gmem, uint64_t gpa_of_gmem,
                                int timeout_ms);

/* ---- guest ------------------------------------------------------------------------------------------------------ */

/*
 * Starts the guest: a process forked from this one in which each vCPU is a
 * thread that runs main(guest, arg), from its first vcpu_run on.  The guest sees
 * the IPA space, not the VMM's views, has default signal actions, and keeps no
 * descriptor but 0, 1 and 2; it cannot be traced.  What main returns becomes the
 * SHUTDOWN event (PSCI SYSTEM_OFF).  Returns when the guest is attached.  The
 * process is a child of this one, reaped by fakehyp_vm_destroy() or
 * fakehyp_disconnect().
 *   -EBUSY   the guest was started already; one that ended before it ran (vcpu_run: -ENOENT) may be started again
 *   -ENOENT  the VM has no vCPU
 *   -EINVAL  an IPA space that wide does not fit into a process
 *   -ECHILD  the process ended before it was attached
 *   -EPERM, -EOPNOTSUPP  as fakehyp_map(), about userfaultfd
 *   -EAGAIN  no further process (fork)
 */
int fakehyp_guest_start(struct fakehyp_vm *vm, int (*main)(struct fakehyp_guest *guest, void *arg), void *arg);
/* Process id of the guest, 0 when it was not started. */
pid_t fakehyp_guest_pid(const struct fakehyp_vm *vm);

/*
 * Inside the guest: none of these returns an error.  An IPA without memory is
 * the guest's abort, one beyond the IPA space ends the guest (SIGABRT).
 */
uint32_t fakehyp_guest_vcpu(const struct fakehyp_guest *guest);
/* Address in the guest process of an IPA: for plain loads and stores. */
void *fakehyp_guest_ptr(const struct fakehyp_guest *guest, uint64_t ipa);
uint64_t fakehyp_guest_load(const struct fakehyp_guest *guest, uint64_t ipa, size_t bytes); /* 1, 2, 4, 8 */
void fakehyp_guest_store(const struct fakehyp_guest *guest, uint64_t ipa, size_t bytes, uint64_t value);
void fakehyp_guest_read(const struct fakehyp_guest *guest, uint64_t ipa, void *buf, size_t length);
void fakehyp_guest_write(const struct fakehyp_guest *guest, uint64_t ipa, const void *buf, size_t length);
/* SMCCC call: function id in x0; returns x0, -1 (NOT_SUPPORTED) for an unknown function.  Blocks until the VMM runs the
 * vCPU again. */
int64_t fakehyp_guest_hypercall(struct fakehyp_guest *guest, uint64_t function_id, uint64_t x1, uint64_t x2,
                                uint64_t x3);
/* 0 or -3 (INVALID_PARAMETER). */
int64_t fakehyp_guest_mem_share(struct fakehyp_guest *guest, uint64_t ipa);
int64_t fakehyp_guest_mem_unshare(struct fakehyp_guest *guest, uint64_t ipa);
/* Protection granule in bytes. */
int64_t fakehyp_guest_meminfo(struct fakehyp_guest *guest);

/* ---- fault-safe access --------------------------------------------------------------------------------------------
 */

/*
 * Copies without a signal: bytes copied, which is short when a private page
 * begins (at its boundary), or -EFAULT when the first byte is in one.  -EINVAL:
 * length above SSIZE_MAX.  No round trip; needs no connection and works on any
 * memory of this process.
 */
ssize_t fakehyp_copy_from(void *to, const void *view, size_t length);
ssize_t fakehyp_copy_to(void *view, const void *from, size_t length);

enum fakehyp_touch { FAKEHYP_TOUCH_OK = 0, FAKEHYP_TOUCH_SIGBUS = 1, FAKEHYP_TOUCH_SIGSEGV = 2 };
/* Makes one real byte access of this thread and reports how it ended, also where the program has handlers of its own;
 * *fault_addr and *fault_code (si_addr and si_code; may be NULL) as the signal had them. */
enum fakehyp_touch fakehyp_touch_read(const volatile void *p, uint8_t *value, void **fault_addr, int *fault_code);
enum fakehyp_touch fakehyp_touch_write(volatile void *p, uint8_t value, void **fault_addr, int *fault_code);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
