/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * EL2 by itself, on memory and nothing else: no other level, no checks, no oracle.
 *
 * Instructions are counted by callgrind, of this same program: those of 2000
 * rounds less those of 1000, and only from a guest's trap until EL2 returns from
 * it.  What the host does between the two calls is not part of them.
 */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fakehyp/hyp.h"

#define BASE_PFN UINT64_C(0x80000)
#define IPA_BITS 40

/* Of this thread: nobody else has a part in it, so other programs' turns are not to count. */
static double cpu_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- a machine -------------------------------------------------------------------------------------------------- */

struct board {
    struct hyp *hyp;
    uint8_t *ram;
    struct hyp_page *vmemmap;
    uint64_t nr_frames, next_pfn;
    uint64_t handle, host_vcpu; /* of the only VM */
};

static void *phys_to_virt(const struct board *board, uint64_t phys)
{
    return board->ram + (phys - (BASE_PFN << HYP_PAGE_SHIFT));
}

static void zero_page(void *ctx, uint64_t phys)
{
    memset(phys_to_virt(ctx, phys), 0, HYP_PAGE_SIZE);
}

static void ignore_tlbi(void *ctx, uint16_t vmid, uint64_t ipa, uint64_t nr)
{
    (void)ctx;
    (void)vmid;
    (void)ipa;
    (void)nr;
}

static void ignore_yield(void *ctx, const char *label)
{
    (void)ctx;
    (void)label;
}

static void on_panic(void *ctx, const char *what)
{
    (void)ctx;
    fprintf(stderr, "bench: EL2 panic: %s\n", what);
    exit(1);
}

static void call(struct board *board, enum hyp_host_call n, uint64_t a1, uint64_t a2, uint64_t a3)
{
    uint64_t regs[8] = {HVC_HOST_BASE + n, a1, a2, a3};

    if (hyp_host_hvc(board->hyp, 0, regs) != HYP_NEXT_HOST || regs[0] || (int64_t)regs[1] < 0) {
        fprintf(stderr, "bench: EL2 call %d: %lld\n", (int)n, (long long)regs[1]);
        exit(1);
    }
}

static uint64_t frames(struct board *board, uint64_t nr)
{
    uint64_t pfn = (board->next_pfn + nr - 1) / nr * nr; /* aligned to its size, as a PGD is */

    board->next_pfn = pfn + nr;
    if (board->next_pfn > BASE_PFN + board->nr_frames)
        die("EL2's machine is too small");
    return pfn;
}

static void *page_shared_with_el2(struct board *board, uint64_t *phys)
{
    uint64_t pfn = frames(board, 1);

    call(board, HVC_host_share_hyp, pfn, 0, 0);
    *phys = pfn << HYP_PAGE_SHIFT;
    return phys_to_virt(board, *phys);
}

static void *zeroed(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        die("memory for EL2");
    return p;
}

static void boot(struct board *board, uint64_t nr_frames)
{
    const struct hyp_memory_region memory = {BASE_PFN << HYP_PAGE_SHIFT, nr_frames << HYP_PAGE_SHIFT, false};

    *board = (struct board){.nr_frames = nr_frames};
    board->hyp = calloc(1, hyp_state_size());
    board->ram = zeroed(nr_frames << HYP_PAGE_SHIFT);
    board->vmemmap = zeroed(nr_frames * sizeof(*board->vmemmap));
    if (!board->hyp)
        die("memory for EL2");
    const struct hyp_config config = {
        .plat = {.ctx = board,
                 .physvirt_offset = (BASE_PFN << HYP_PAGE_SHIFT) - (uintptr_t)board->ram,
                 .zero_page = zero_page,
                 .tlbi = ignore_tlbi,
                 .yield = ignore_yield,
                 .panic = on_panic},
        .memory = &memory,
        .nr_memory = 1,
        .pa_bits = 36,
        .vmemmap = board->vmemmap,
        .vmemmap_base_pfn = BASE_PFN,
        .vmemmap_nr = nr_frames,
        .pool_pfn = BASE_PFN,
        .pool_nr = hyp_host_pool_pages(nr_frames),
        .nr_cpus = 1,
    };
    board->next_pfn = BASE_PFN + config.pool_nr;
    if (hyp_init(board->hyp, &config))
        die("booting EL2");
    call(board, HVC_prot_finalize, 0, 0, 0);
}

static void destroy(struct board *board)
{
    munmap(board->vmemmap, board->nr_frames * sizeof(*board->vmemmap));
    munmap(board->ram, board->nr_frames << HYP_PAGE_SHIFT);
    free(board->hyp);
}

/* A protected VM whose vCPU is loaded. */
static void make_vm(struct board *board)
{
    uint64_t regs[8] = {HVC_HOST_BASE + HVC_reserve_vm}, host_vm;
    struct kvm_host_vm *kvm = page_shared_with_el2(board, &host_vm);

    hyp_host_hvc(board->hyp, 0, regs);
    board->handle = regs[1];
    *kvm = (struct kvm_host_vm){.handle = (uint32_t)board->handle,
                                .created_vcpus = 1,
                                .is_protected = 1,
                                .ipa_bits = IPA_BITS,
                                .unshare_mode = HYP_UNSHARE_UNILATERAL};
    uint64_t pgd = frames(board, hyp_s2_pgd_pages(IPA_BITS)), vm = frames(board, HYP_VM_PAGES);
    call(board, HVC_init_vm, host_vm, vm << HYP_PAGE_SHIFT, pgd << HYP_PAGE_SHIFT);
    page_shared_with_el2(board, &board->host_vcpu);
    call(board, HVC_init_vcpu, board->handle, board->host_vcpu, frames(board, HYP_VCPU_PAGES) << HYP_PAGE_SHIFT);
    call(board, HVC_vcpu_load, board->handle, 0, 0);
}

/* As EL1 does before each donation. */
static void top_up(struct board *board)
{
    struct hyp_memcache *mc = &((struct kvm_host_vcpu *)phys_to_virt(board, board->host_vcpu))->pkvm_memcache;

    while (mc->nr_pages < hyp_s2_min_pages(IPA_BITS)) {
        uint64_t phys = frames(board, 1) << HYP_PAGE_SHIFT;
        memcpy(phys_to_virt(board, phys), &mc->head, sizeof(mc->head));
        mc->head = phys;
        mc->nr_pages++;
    }
}

static void enter(struct board *board)
{
    uint64_t regs[8] = {HVC_HOST_BASE + HVC_vcpu_run, board->host_vcpu};

    if (hyp_host_hvc(board->hyp, 0, regs) != HYP_NEXT_GUEST)
        die("the guest does not run");
}

/* A call that the guest makes, until the guest goes on. */
static void guest_call(struct board *board, uint64_t id, uint64_t ipa)
{
    const struct hyp_trap trap = {.esr = ESR_EC_HVC64 << ESR_EC_SHIFT, .x = {id, ipa}};
    uint64_t regs[8] = {0};

    if (hyp_guest_trap(board->hyp, 0, &trap, regs) == HYP_NEXT_HOST)
        enter(board);
}

static void start_sharing(struct board *board)
{
    boot(board, 1024);
    make_vm(board);
    top_up(board);
    call(board, HVC_host_donate_guest, frames(board, 1), 0, 0);
    enter(board);
}

static void share_and_unshare(struct board *board)
{
    guest_call(board, SMCCC_MEM_SHARE, 0);
    if (hyp_guest_regs(board->hyp, 0)->x[0] != SMCCC_RET_SUCCESS)
        die("MEM_SHARE");
    guest_call(board, SMCCC_MEM_UNSHARE, 0);
    if (hyp_guest_regs(board->hyp, 0)->x[0] != SMCCC_RET_SUCCESS)
        die("MEM_UNSHARE");
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

int el2_share_main(unsigned n)
{
    struct board board;

    start_sharing(&board);
    while (n--)
        share_and_unshare(&board);
    destroy(&board);
    return 0;
}

double el2_call_us(void)
{
    enum { ROUNDS = 2000 };
    struct board board;

    start_sharing(&board);
    double t = cpu_us();
    for (unsigned i = 0; i < ROUNDS; i++)
        share_and_unshare(&board);
    t = cpu_us() - t;
    destroy(&board);
    return t / (2 * ROUNDS);
}

/* Instructions in EL2; negative: callgrind does not run here. */
static double instructions(unsigned rounds)
{
    char command[200], line[256];
    double count = -1;

    snprintf(command, sizeof(command),
             "valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=hyp_guest_trap /proc/%d/exe -s "
             "%u 2>&1 </dev/null",
             (int)getpid(), rounds);
    FILE *f = popen(command, "re");
    if (!f)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        const char *collected = strstr(line, "Collected : ");
        if (collected)
            count = strtod(collected + strlen("Collected : "), NULL);
    }
    return pclose(f) ? -1 : count;
}

static void share_row(void)
{
    const char *name = "EL2 share + unshare of one page", *unit = "instructions";
    const double goal = 1000;

    if (!wanted(name))
        return;
    double few = instructions(1000), many = few < 0 ? -1 : instructions(2000);
    if (many < 0)
        absent(name, unit, goal, "valgrind, which counts them, does not run here (Debian: valgrind)");
    else
        bounded(name, unit, (many - few) / 1000, goal);
}

/* Nanoseconds a page. */
static double donation(uint64_t nr)
{
    struct board board;

    boot(&board, nr + nr / 64 + 1024);
    make_vm(&board);
    uint64_t first = frames(&board, 1);
    board.next_pfn = first + nr; /* the guest's; top_up() takes from behind them */
    double t = cpu_us();
    for (uint64_t i = 0; i < nr; i++) {
        top_up(&board);
        call(&board, HVC_host_donate_guest, first + i, i, 0);
    }
    t = cpu_us() - t;
    destroy(&board);
    return t * 1e3 / (double)nr;
}

static void donation_row(void)
{
    const char *name = "EL2 donation of 1 GiB in 4K pages, as of 16 MiB";
    double large[PAIRS], small[PAIRS];

    if (!wanted(name))
        return;
    for (unsigned i = 0; i < PAIRS; i++) {
        large[i] = donation(GIB / PAGE);
        small[i] = donation(16 * MIB / PAGE);
    }
    result(name, "ns/page", large, small, 1.2);
}

void el2_rows(void)
{
    share_row();
    donation_row();
}
