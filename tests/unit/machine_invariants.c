/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit finds each invariant broken, and says which: damage is planted, found, and repaired. */
#include "tests/common/simworld.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fakehyp/stage2/descriptor.h"
#include "src/host/mm_internal.h"
#include "src/host/policy.h"
#include "src/machine/internal.h"

#define P HOST_PAGE_SIZE

static char said[4000];

static void note(void *ctx, const char *text)
{
    (void)ctx;
    snprintf(said + strlen(said), sizeof(said) - strlen(said), "%s\n", text);
}

static bool says(struct simworld *w, const char *words)
{
    said[0] = '\0';
    machine_audit(w->machine, note, NULL, NULL);
    return strstr(said, words) != NULL;
}

#define assert_says(w, words)                                                                                          \
    do {                                                                                                               \
        bool they_do = says(w, words);                                                                                 \
        if (!they_do)                                                                                                  \
            print_error("nobody says \"%s\": %s\n", words, said);                                                      \
        assert_true(they_do);                                                                                          \
    } while (0)

static uint64_t pfn_of(struct simworld *w, uint64_t index)
{
    struct page_report page;
    gmem_page_report(w->gmem, index, &page);
    return page.pfn;
}

static void plant_attr(struct simworld *w, uint64_t index, uint64_t attr)
{
    assert_int_equal(rangemap_reserve(&w->gmem->attr), 0);
    rangemap_set(&w->gmem->attr, index, index + 1, attr);
}

/* Whoever may touch the bytes of a private page is one too many; who does not may come and go. */
static void reach_of_a_private_page(struct simworld *w)
{
    char words[120];
    struct ref *ref;
    uint64_t pfn;

    sw_must(sim_host_write(w->sim, w->mm, w->va + 5 * P, "x", 1), SIM_OK);
    sw_must(sw_convert(w, 5, 1, true), 0);
    for (unsigned kind = 0; kind < REF_KINDS_COUNT; kind++) {
        if (kind == REF_PTE || kind == REF_GATHER)
            continue;
        assert_int_equal(ref_take(w->gmem, 5, (enum ref_kind)kind, "somebody", 0, &ref), 0);
        snprintf(words, sizeof(words), "I1: guest_memfd %u page 0x5 is within the host's reach: (PRIVATE, OWNED, %s",
                 gmem_id(w->gmem), ref_kinds[kind].name);
        if (ref_kinds[kind].touches)
            assert_says(w, words);
        else
            sw_audit(w);
        ref_drop(ref);
        sw_audit(w);
    }
    /* A PTE. */
    sw_must(sim_host_write(w->sim, w->mm, w->va + 6 * P, "x", 1), SIM_OK);
    plant_attr(w, 6, ATTR_PRIVATE);
    assert_says(w, "PTE of vmm");
    assert_says(w, "a TLB entry of CPU 0");
    plant_attr(w, 6, ATTR_SHARED);
    sw_audit(w);
    /* A flush that was forgotten. */
    struct tlb_entry *tlb = machine_host(w->machine)->cpus[3].tlb;
    pfn = pfn_of(w, 5);
    tlb[7] = (struct tlb_entry){.mm = w->mm, .pfn = pfn, .vpn = 1, .gmem = w->gmem, .index = 5};
    assert_says(w, "a TLB entry of CPU 3");
    tlb[7] = (struct tlb_entry){.mm = NULL};
    sw_audit(w);
}
SIMWORLD(reach_of_a_private_page, .no_vmm = true)

/* The place of a frame's leaf, or of the block entry above it, in the host's or a guest's tables. */
static uint64_t *entry(struct machine *m, const struct hyp_vttbr *vttbr, uint64_t ipa, unsigned level)
{
    uint64_t table = vttbr->pgd;
    unsigned start = hyp_s2_start_level(vttbr->ipa_bits);
    for (unsigned at = start;; at++) {
        unsigned shift = 12 + 9 * (3 - at);
        uint64_t slot = at == start ? ipa >> shift : (ipa >> shift) & 511;
        uint64_t *pte = (uint64_t *)(void *)(m->ram + (table - m->ram_base)) + slot;
        if (at == level)
            return pte;
        table = *pte & UINT64_C(0x0000fffffffff000);
    }
}

/* A page that the guest owns, in the host's stage 2 all the same. */
static void host_maps_a_guests_page(struct simworld *w)
{
    struct hyp_vttbr vttbr;

    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sim_guest_write(w->vcpu, 3 * P, "x", 1), 0);
    hyp_host_vttbr(w->machine->hyp, &vttbr);
    uint64_t *pte = entry(w->machine, &vttbr, pfn_of(w, 3) << 12, 3), right = *pte;
    *pte = (pfn_of(w, 3) << 12) | 3;
    assert_says(w, "I2: guest_memfd");
    *pte = right;
    sw_audit(w);
}
SIMWORLD(host_maps_a_guests_page, .no_oracle = true)

static void free_frames(struct simworld *w)
{
    struct host *host = machine_host(w->machine);
    struct device *nic = device_new(host, "nic");

    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sim_guest_write(w->vcpu, 3 * P, "x", 1), 0);
    struct frame *f = frame_of(host, pfn_of(w, 3)), right = *f;
    *f = (struct frame){.index = 0};
    assert_says(w, "I3: free frame");
    assert_says(w, "guest-OWNED");
    *f = right;
    sw_audit(w);
    sw_must(device_map(nic, w->mm, w->va + 7 * P, 1, 0, &w->caller), 0);
    f = frame_of(host, pfn_of(w, 7));
    right = *f;
    *f = (struct frame){.index = 0};
    assert_says(w, "is mapped for device nic");
    *f = right;
    device_free(nic);
    sw_audit(w);
}
SIMWORLD_TEST(free_frames, false)

/* A guest that maps a block has all of it as its own: EL2 makes none, so one is planted. */
static void shared_inside_a_block(struct simworld *w)
{
    struct hyp_vttbr vttbr;

    struct gmem *first = w->gmem;

    /* Its place in the IPA space is its frame's in RAM, modulo a block. */
    sw_must(gmem_create(w->vm, 4 * P, 0, &w->gmem, &w->caller), 0);
    sw_must(gmem_fallocate(w->gmem, FALLOC_FL_KEEP_SIZE, 3 * P, P, &w->caller), 0);
    uint64_t gfn = 512 + (pfn_of(w, 3) & 511);
    sw_must(vm_set_memory_region(w->vm, 1, 0, gfn * P, P, w->gmem, 3 * P, &w->caller), 0);
    sw_must(sim_guest_write(w->vcpu, gfn * P, "x", 1), 0);
    assert_int_equal(hyp_vm_vttbr(w->machine->hyp, vm_handle(w->vm), &vttbr), 0);
    uint64_t *pte = entry(w->machine, &vttbr, gfn << 12, 2), right = *pte;
    uint64_t leaf = *entry(w->machine, &vttbr, gfn << 12, 3);
    *pte = (leaf & ~(UINT64_C(0x1ff) << 12) & ~UINT64_C(2));
    says(w, "");
    assert_null(strstr(said, "I4"));
    plant_attr(w, 3, ATTR_SHARED);
    assert_says(w, "I4: guest_memfd");
    plant_attr(w, 3, ATTR_PRIVATE);
    *pte = right;
    gmem_put(w->gmem);
    w->gmem = first;
    sw_audit(w);
}
SIMWORLD(shared_inside_a_block, .no_oracle = true)

static void attribute_ranges(struct simworld *w)
{
    sw_must(sw_convert(w, 3, 4, true), 0);
    w->gmem->nr_pages--;
    assert_says(w, "I5: guest_memfd");
    w->gmem->nr_pages++;
    sw_audit(w);
}
SIMWORLD(attribute_ranges, .no_vmm = true)

static int elsewhere(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller, struct gmem_busy *busy)
{
    busy->error_offset_valid = true;
    busy->error_offset = end << HOST_PAGE_SHIFT;
    return -EAGAIN;
}

static int changes_and_fails(struct gmem *gmem, uint64_t start, uint64_t end, struct caller *caller,
                             struct gmem_busy *busy)
{
    elsewhere(gmem, start, start, caller, busy);
    assert_int_equal(rangemap_reserve(&gmem->attr), 0);
    rangemap_set(&gmem->attr, start, end, ATTR_PRIVATE);
    return -EAGAIN;
}

static void failures(struct simworld *w)
{
    const struct gmem_policy *right = w->gmem->policy;
    struct gmem_policy wrong = *right;

    wrong.check = elsewhere;
    w->gmem->policy = &wrong;
    assert_int_equal(sw_convert(w, 3, 2, true), -EAGAIN);
    assert_says(w, "I7: guest_memfd");
    sw_audit(w); /* told once */
    wrong.check = changes_and_fails;
    assert_int_equal(sw_convert(w, 3, 2, true), -EAGAIN);
    assert_says(w, "changed attributes");
    plant_attr(w, 3, ATTR_SHARED);
    plant_attr(w, 4, ATTR_SHARED);
    w->gmem->policy = right;
    sw_audit(w);
}
SIMWORLD(failures, .no_vmm = true)

/* What the guest wrote into private memory, read by the kernel: without a hypervisor nobody stops it. */
static void a_secret_is_read(struct simworld *w)
{
    char buf[8] = "";

    sw_must(sw_convert(w, 3, 1, true), 0);
    sw_must(sim_guest_write(w->vcpu, 3 * P, "secret", 7), 0);
    assert_int_equal(sim_kernel_load(w->sim, pfn_of(w, 3), false, buf, 7), SIM_OK);
    if (w->variant.hyp == GMEM_HYP_SW_PROTECTED) {
        assert_string_equal(buf, "secret");
        assert_says(w, "I9: the kernel read what the guest wrote");
    } else {
        assert_string_equal(buf, "");
    }
    sw_audit(w);
    /* What the VMM wrote before is no secret. */
    sw_must(sim_host_write(w->sim, w->mm, w->va + 4 * P, "public", 7), SIM_OK);
    sw_must(sw_convert(w, 4, 1, true), 0);
    sw_must(sim_kernel_load(w->sim, pfn_of(w, 4), false, buf, 7), SIM_OK);
    assert_string_equal(buf, "public");
}
SIMWORLD(a_secret_is_read, .variant.hyp = GMEM_HYP_SW_PROTECTED)

static void test_no_secret_is_read(void **state)
{
    (void)state;
    simworld_run_with(&(struct simworld_options){.body = a_secret_is_read});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reach_of_a_private_page),
        cmocka_unit_test(test_host_maps_a_guests_page),
        cmocka_unit_test(test_free_frames),
        cmocka_unit_test(test_shared_inside_a_block),
        cmocka_unit_test(test_attribute_ranges),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_a_secret_is_read),
        cmocka_unit_test(test_no_secret_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
