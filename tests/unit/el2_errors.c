/* SPDX-License-Identifier: BSD-2-Clause */
/* Errors of the host's calls, the first failing check of each deciding; and calls that are none. */
#include "tests/unit/el2_harness.h"

#include <string.h>

#define GFN UINT64_C(0x40000)

struct fixture {
    struct el2 *el2;
    struct el2_vm pvm, np;
    uint64_t free_pfn;   /* host OWNED */
    uint64_t owned_pfn;  /* the pVM's at GFN */
    uint64_t shared_pfn; /* shared with the np-guest at GFN */
};

static int set_up(void **state)
{
    static struct fixture f;
    struct el2 *el2 = el2_new(NULL);

    f = (struct fixture){.el2 = el2};
    el2_vm_new(el2, &f.pvm, true, HYP_UNSHARE_CONSENT, 1);
    el2_vm_new(el2, &f.np, false, HYP_UNSHARE_CONSENT, 1);
    f.free_pfn = el2_frames(el2, 1, 1);
    f.owned_pfn = el2_frames(el2, 1, 1);
    f.shared_pfn = el2_frames(el2, 1, 1);
    el2_topup(el2, &f.pvm, 0, 4);
    el2_topup(el2, &f.np, 0, 4);
    EL2_CALL(el2, vcpu_load, f.np.handle, 0);
    assert_int_equal(EL2_CALL(el2, host_share_guest, f.shared_pfn, GFN, 1, HYP_PROT_RWX), 0);
    EL2_CALL(el2, vcpu_put);
    EL2_CALL(el2, vcpu_load, f.pvm.handle, 0);
    assert_int_equal(EL2_CALL(el2, host_donate_guest, f.owned_pfn, GFN), 0);
    EL2_CALL(el2, vcpu_put);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    el2_free(f->el2);
    return 0;
}

enum loaded { NOTHING, PVM, NP };

struct error_case {
    enum loaded loaded;
    enum hyp_host_call call;
    uint64_t arg[4];
    int64_t result;
};

static void run_cases(struct fixture *f, const struct error_case *cases, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        const struct error_case *c = &cases[i];
        int64_t ret;

        if (c->loaded != NOTHING)
            EL2_CALL(f->el2, vcpu_load, c->loaded == PVM ? f->pvm.handle : f->np.handle, 0);
        ret = el2_call(f->el2, 0, c->call, c->arg[0], c->arg[1], c->arg[2], c->arg[3]);
        if (ret != c->result)
            fail_msg("case %u, call %d: %ld instead of %ld", i, c->call, (long)ret, (long)c->result);
        EL2_CALL(f->el2, vcpu_put);
    }
    el2_assert_page(f->el2, f->free_pfn, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
    el2_assert_page(f->el2, f->owned_pfn, PKVM_PAGE_NOPAGE, PKVM_PAGE_NOPAGE, 0, 0);
    el2_assert_page(f->el2, f->shared_pfn, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_NOPAGE, 1, 0);
}

#define RUN_CASES(f, cases) run_cases(f, cases, sizeof(cases) / sizeof((cases)[0]))

static void test_protected(void **state)
{
    struct fixture *f = *state;
    const uint64_t beyond = UINT64_C(1) << (EL2_IPA_BITS - 12), huge = UINT64_MAX;
    const struct error_case cases[] = {
        {NOTHING, HVC_host_donate_guest, {f->free_pfn, GFN + 1}, -HYP_EINVAL},
        {NP, HVC_host_donate_guest, {f->free_pfn, GFN + 1}, -HYP_EINVAL},
        {PVM, HVC_host_donate_guest, {f->el2->nomap_pfn, GFN + 1}, -HYP_EPERM},
        {PVM, HVC_host_donate_guest, {f->el2->gap_pfn, GFN + 1}, -HYP_EPERM},
        {PVM, HVC_host_donate_guest, {huge, GFN + 1}, -HYP_EINVAL},
        {PVM, HVC_host_donate_guest, {UINT64_C(1) << 60, GFN + 1}, -HYP_EPERM},
        {PVM, HVC_host_donate_guest, {f->owned_pfn, beyond}, -HYP_EPERM},
        {PVM, HVC_host_donate_guest, {f->free_pfn, GFN}, -HYP_EPERM},
        {PVM, HVC_host_donate_guest, {f->free_pfn, beyond}, -HYP_ERANGE},
        {PVM, HVC_host_donate_guest, {f->free_pfn, huge}, -HYP_ERANGE},
        {NOTHING, HVC_force_reclaim_guest_page, {f->el2->gap_pfn << 12}, -HYP_EFAULT},
        {NOTHING, HVC_force_reclaim_guest_page, {huge}, -HYP_EFAULT},
        {NOTHING, HVC_force_reclaim_guest_page, {f->el2->nomap_pfn << 12}, -HYP_EAGAIN},
        {NOTHING, HVC_force_reclaim_guest_page, {f->free_pfn << 12}, -HYP_EAGAIN},
        {NOTHING, HVC_force_reclaim_guest_page, {f->shared_pfn << 12}, -HYP_EAGAIN},
        {NOTHING, HVC_force_reclaim_guest_page, {f->pvm.vm_page}, -HYP_EPERM},
        {NOTHING, HVC_force_reclaim_guest_page, {EL2_BASE_PFN << 12}, -HYP_EPERM},
        {NOTHING, HVC_reclaim_dying_guest_page, {f->pvm.handle, GFN}, -HYP_EINVAL},
        {NOTHING, HVC_reclaim_dying_guest_page, {0, GFN}, -HYP_EINVAL},
        {NOTHING, HVC_reclaim_dying_guest_page, {huge, GFN}, -HYP_EINVAL},
        {NOTHING, HVC_vcpu_in_poison_fault, {0}, -HYP_EINVAL},
        {NP, HVC_vcpu_in_poison_fault, {0}, -HYP_EINVAL},
        {PVM, HVC_vcpu_in_poison_fault, {0}, -HYP_EINVAL},
        {PVM, HVC_vcpu_run, {f->np.host_vcpu[0]}, -HYP_EINVAL},
        {NOTHING, HVC_vcpu_run, {f->pvm.host_vcpu[0]}, -HYP_EINVAL},
        {NOTHING, HVC_host_share_hyp, {f->owned_pfn}, -HYP_EPERM},
        {NOTHING, HVC_host_share_hyp, {f->shared_pfn}, -HYP_EPERM},
        {NOTHING, HVC_host_share_hyp, {huge}, -HYP_EINVAL},
        {NOTHING, HVC_host_share_hyp, {UINT64_C(1) << 60}, -HYP_EPERM},
        {NOTHING, HVC_host_share_hyp, {f->el2->nomap_pfn}, -HYP_EPERM},
        {NOTHING, HVC_host_unshare_hyp, {f->free_pfn}, -HYP_EPERM},
        {NOTHING, HVC_host_unshare_hyp, {f->shared_pfn}, -HYP_EPERM},
        {NOTHING, HVC_host_unshare_hyp, {f->pvm.host_kvm >> 12}, -HYP_EBUSY},
        {NOTHING, HVC_host_may_access, {f->free_pfn}, 1},
        {NOTHING, HVC_host_may_access, {f->shared_pfn}, 1},
        {NOTHING, HVC_host_may_access, {f->owned_pfn}, 0},
        {NOTHING, HVC_host_may_access, {EL2_BASE_PFN}, 0},
        {NOTHING, HVC_host_may_access, {f->pvm.vm_page >> 12}, 0},
        {NOTHING, HVC_host_may_access, {f->el2->nomap_pfn}, -HYP_EPERM},
        {NOTHING, HVC_host_may_access, {UINT64_C(1) << 60}, -HYP_EPERM},
        {NOTHING, HVC_host_may_access, {huge}, -HYP_EINVAL},
        {NOTHING, HVC_start_teardown_vm, {0x1000 + 2}, -HYP_EINVAL},
        {NOTHING, HVC_start_teardown_vm, {0xfff}, -HYP_EINVAL},
        {NOTHING, HVC_start_teardown_vm, {0x1000 + HYP_MAX_VMS}, -HYP_EINVAL},
        {PVM, HVC_start_teardown_vm, {f->pvm.handle}, -HYP_EINVAL},
        {NOTHING, HVC_finalize_teardown_vm, {f->pvm.handle}, -HYP_EINVAL},
        {NOTHING, HVC_finalize_teardown_vm, {0}, -HYP_EINVAL},
        {NOTHING, HVC_prot_finalize, {0}, -HYP_EPERM},
    };

    RUN_CASES(f, cases);
}

static void test_np(void **state)
{
    struct fixture *f = *state;
    const uint64_t beyond = UINT64_C(1) << (EL2_IPA_BITS - 12), huge = UINT64_MAX;
    const uint64_t block = (f->free_pfn + 511) / 512 * 512;
    const struct error_case cases[] = {
        {NOTHING, HVC_host_share_guest, {f->free_pfn, GFN + 1, 1, 7}, -HYP_EINVAL},
        {PVM, HVC_host_share_guest, {f->free_pfn, GFN + 1, 1, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {f->el2->gap_pfn, GFN, 1, 8}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {UINT64_C(1) << 24, GFN, 1, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {huge, GFN, 1, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {f->free_pfn, GFN + 1, 0, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {f->free_pfn, GFN + 1, 2, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {block, GFN + 1, 512, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {block + 1, GFN, 512, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {block, GFN, huge, 7}, -HYP_EINVAL},
        {NP, HVC_host_share_guest, {f->el2->nomap_pfn, GFN, 512, 7}, -HYP_EINVAL}, /* more than one region */
        {NP, HVC_host_share_guest, {f->el2->gap_pfn, GFN, 1, 7}, -HYP_EPERM},
        {NP, HVC_host_share_guest, {f->owned_pfn, beyond, 1, 7}, -HYP_ERANGE},
        {NP, HVC_host_share_guest, {f->free_pfn, GFN, 1, 7}, -HYP_EPERM},
        {NP, HVC_host_share_guest, {block, GFN, 512, 7}, -HYP_EPERM}, /* one of the IPAs is taken */
        {NP, HVC_host_share_guest, {f->owned_pfn, GFN + 1, 1, 7}, -HYP_EPERM},
        {NP, HVC_host_share_guest, {f->np.host_kvm >> 12, GFN + 1, 1, 7}, -HYP_EPERM},
        {NOTHING, HVC_host_unshare_guest, {0, GFN, 1}, -HYP_EINVAL},
        {NOTHING, HVC_host_unshare_guest, {f->pvm.handle, GFN, 1}, -HYP_EINVAL},
        {NOTHING, HVC_host_unshare_guest, {f->np.handle, GFN, 2}, -HYP_EINVAL},
        {NOTHING, HVC_host_unshare_guest, {f->np.handle, GFN + 1, 512}, -HYP_EINVAL},
        {NOTHING, HVC_host_unshare_guest, {f->np.handle, beyond, 1}, -HYP_ERANGE},
        {NOTHING, HVC_host_unshare_guest, {f->np.handle, GFN + 1, 1}, -HYP_ENOENT},
        {NOTHING, HVC_host_unshare_guest, {f->np.handle, GFN, 512}, -HYP_E2BIG},
        {NOTHING, HVC_relax_perms_guest, {GFN, 7}, -HYP_EINVAL},
        {PVM, HVC_relax_perms_guest, {GFN, 7}, -HYP_EINVAL},
        {NP, HVC_relax_perms_guest, {GFN, 8}, -HYP_EINVAL},
        {NP, HVC_relax_perms_guest, {beyond, 7}, -HYP_ERANGE},
        {NP, HVC_relax_perms_guest, {GFN + 1, 7}, -HYP_EAGAIN},
        {NOTHING, HVC_wrprotect_guest, {f->pvm.handle, GFN, 1}, -HYP_EINVAL},
        {NOTHING, HVC_wrprotect_guest, {f->np.handle, GFN, 3}, -HYP_EINVAL},
        {NOTHING, HVC_wrprotect_guest, {f->np.handle, beyond, 1}, -HYP_ERANGE},
        {NOTHING, HVC_wrprotect_guest, {f->np.handle, GFN + 1, 1}, 0},
        {NOTHING, HVC_test_clear_young_guest, {f->pvm.handle, GFN, 1, 1}, -HYP_EINVAL},
        {NOTHING, HVC_test_clear_young_guest, {f->np.handle, GFN, 0, 1}, -HYP_EINVAL},
        {NOTHING, HVC_test_clear_young_guest, {f->np.handle, beyond, 1, 1}, -HYP_ERANGE},
        {NOTHING, HVC_test_clear_young_guest, {f->np.handle, GFN + 1, 1, 1}, 0},
        {NOTHING, HVC_mkyoung_guest, {GFN}, -HYP_EINVAL},
        {PVM, HVC_mkyoung_guest, {GFN}, -HYP_EINVAL},
        {NP, HVC_mkyoung_guest, {GFN + 1}, 0},
        {NP, HVC_mkyoung_guest, {beyond}, 0},
    };

    RUN_CASES(f, cases);
}

/* Functions refuse protected VMs themselves, too. */
static void test_attributes_of_protected(void **state)
{
    struct fixture *f = *state;
    struct hyp_vm *vm = hyp_vm_find(f->el2->hyp, f->pvm.handle);

    assert_int_equal(pkvm_relax_perms(vm, GFN, 7), -HYP_EPERM);
    assert_int_equal(pkvm_wrprotect(vm, GFN, 1), -HYP_EPERM);
    assert_int_equal(pkvm_test_clear_young(vm, GFN, 1, true), -HYP_EPERM);
    assert_int_equal(pkvm_mkyoung(vm, GFN), -HYP_EPERM);
}

struct init_fixture {
    struct el2 *el2;
    uint64_t host_kvm, vm_page, pgd;
    struct kvm_host_vm good;
};

static int64_t init_with(struct init_fixture *f, struct kvm_host_vm host)
{
    *(struct kvm_host_vm *)el2_virt(f->el2, f->host_kvm) = host;
    return EL2_CALL(f->el2, init_vm, f->host_kvm, f->vm_page, f->pgd);
}

#define BAD_FIELD(f, field, value)                                                                                     \
    do {                                                                                                               \
        struct kvm_host_vm host = (f)->good;                                                                           \
        host.field = (value);                                                                                          \
        assert_int_equal(init_with(f, host), -HYP_EINVAL);                                                             \
    } while (0)

static void test_init_vm(void **state)
{
    struct fixture *outer = *state;
    struct el2 *el2 = outer->el2;
    struct init_fixture f = {.el2 = el2};
    uint64_t unshared = el2_frames(el2, 1, 1) << 12;

    f.host_kvm = el2_shared_page(el2);
    f.vm_page = el2_frames(el2, 1, 1) << 12;
    f.pgd = el2_frames(el2, 2, 2) << 12;
    f.good = (struct kvm_host_vm){
        .handle = (uint32_t)EL2_CALL(el2, reserve_vm), .created_vcpus = 1, .is_protected = 1, .ipa_bits = EL2_IPA_BITS};
    *(struct kvm_host_vm *)el2_virt(el2, f.host_kvm) = f.good;

    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm + 8, f.vm_page, f.pgd), -HYP_EINVAL);
    assert_int_equal(EL2_CALL(el2, init_vm, unshared, f.vm_page, f.pgd), -HYP_EPERM);
    assert_int_equal(EL2_CALL(el2, init_vm, UINT64_C(1) << 50, f.vm_page, f.pgd), -HYP_EPERM);
    BAD_FIELD(&f, created_vcpus, 0);
    BAD_FIELD(&f, created_vcpus, HYP_VM_MAX_VCPUS + 1);
    BAD_FIELD(&f, handle, HYP_HANDLE_OFFSET - 1);
    BAD_FIELD(&f, handle, f.good.handle + 1);
    BAD_FIELD(&f, handle, HYP_HANDLE_OFFSET + HYP_MAX_VMS);
    BAD_FIELD(&f, handle, (uint32_t)outer->pvm.handle);
    BAD_FIELD(&f, ipa_bits, 31);
    BAD_FIELD(&f, ipa_bits, 49);
    BAD_FIELD(&f, unshare_mode, 2);
    *(struct kvm_host_vm *)el2_virt(el2, f.host_kvm) = f.good;
    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm, f.vm_page + 8, f.pgd), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm, f.vm_page, f.pgd + HYP_PAGE_SIZE), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm, f.host_kvm, f.pgd), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm, f.pgd + HYP_PAGE_SIZE, f.pgd), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm, f.vm_page, outer->pvm.pgd), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vm, f.host_kvm, el2->gap_pfn << 12, f.pgd), -HYP_ENOMEM);
    /* Nothing has happened: no pin, no donation, no byte. */
    el2_assert_page(el2, f.host_kvm >> 12, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED, 0, 0);
    el2_assert_page(el2, f.vm_page >> 12, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
    assert_int_equal(*(uint8_t *)el2_virt(el2, f.vm_page), 0xa5);
    assert_int_equal(init_with(&f, f.good), 0);
    assert_int_equal(init_with(&f, f.good), -HYP_ENOMEM);
}

static void test_init_vcpu(void **state)
{
    struct fixture *f = *state;
    struct el2 *el2 = f->el2;
    uint64_t host = el2_shared_page(el2), page = el2_frames(el2, 1, 1) << 12;
    struct kvm_host_vcpu *host_vcpu = el2_virt(el2, host);

    assert_int_equal(EL2_CALL(el2, init_vcpu, f->pvm.handle, host + 1, page), -HYP_EINVAL);
    assert_int_equal(EL2_CALL(el2, init_vcpu, f->pvm.handle, host, page + 1), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vcpu, 0, host, host), -HYP_ENOMEM);
    assert_int_equal(EL2_CALL(el2, init_vcpu, 0, host, page), -HYP_ENOENT);
    assert_int_equal(EL2_CALL(el2, init_vcpu, f->pvm.handle, page, page), -HYP_EBUSY);
    assert_int_equal(EL2_CALL(el2, init_vcpu, f->pvm.handle, host, page), -HYP_EINVAL); /* there is a vcpu 0 */
    host_vcpu->vcpu_idx = 1;
    assert_int_equal(EL2_CALL(el2, init_vcpu, f->pvm.handle, host, page), -HYP_EINVAL);
    host_vcpu->vcpu_idx = UINT32_MAX;
    assert_int_equal(EL2_CALL(el2, init_vcpu, f->pvm.handle, host, page), -HYP_EINVAL);
    el2_assert_page(el2, host >> 12, PKVM_PAGE_SHARED_OWNED, PKVM_PAGE_SHARED_BORROWED, 0, 0);
    el2_assert_page(el2, page >> 12, PKVM_PAGE_OWNED, PKVM_PAGE_NOPAGE, 0, 0);
}

static void test_all_handles(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 2; i < HYP_MAX_VMS; i++)
        assert_int_equal(EL2_CALL(f->el2, reserve_vm), HYP_HANDLE_OFFSET + i);
    assert_int_equal(EL2_CALL(f->el2, reserve_vm), -HYP_ENOMEM);
    /* A live VM is not unreserved, nor is nonsense. */
    EL2_CALL(f->el2, unreserve_vm, f->pvm.handle);
    EL2_CALL(f->el2, unreserve_vm, 0);
    EL2_CALL(f->el2, unreserve_vm, UINT64_MAX);
    assert_int_equal(EL2_CALL(f->el2, reserve_vm), -HYP_ENOMEM);
    EL2_CALL(f->el2, unreserve_vm, HYP_HANDLE_OFFSET + 7);
    assert_int_equal(EL2_CALL(f->el2, reserve_vm), HYP_HANDLE_OFFSET + 7);
}

static void assert_not_supported(struct el2 *el2, unsigned cpu, uint64_t id)
{
    uint64_t regs[8] = {id, 1, 2, 3, 4, 5, 6, 7};

    assert_int_equal(el2_hvc(el2, cpu, regs), HYP_NEXT_HOST);
    assert_int_equal((int64_t)regs[0], SMCCC_RET_NOT_SUPPORTED);
    assert_int_equal(regs[1], 1);
}

static void test_dispatch(void **state)
{
    struct fixture *f = *state;
    uint64_t regs[8] = {HVC_HOST_BASE + HVC_host_share_hyp, f->free_pfn, 2, 3, 4, 5, 6, 7};
    bool known;

    for (uint64_t n = 0; n < 256; n++) {
        known = false;
#define X(number, name, nargs) known |= n == (number);
        HYP_HOST_CALL_MAP(X)
#undef X
        if (!known)
            assert_not_supported(f->el2, 0, HVC_HOST_BASE + n);
    }
    assert_not_supported(f->el2, 0, 0);
    assert_not_supported(f->el2, 0, UINT64_MAX);
    assert_not_supported(f->el2, 0, UINT64_C(0x84000008));
    assert_not_supported(f->el2, 4, HVC_HOST_BASE + HVC_reserve_vm);
    assert_int_equal(el2_hvc(f->el2, 0, regs), HYP_NEXT_HOST);
    for (unsigned i = 2; i < 8; i++)
        assert_int_equal(regs[i], i);
    assert_int_equal(EL2_CALL(f->el2, host_unshare_hyp, f->free_pfn), 0);
}

static void test_before_finalize(void **state)
{
    struct fixture *f = *state;

    f->el2->inner_calls = true;
    f->el2->hyp->finalized = f->el2->hyp->cpus[0].finalized = false;
#define X(number, name, nargs)                                                                                         \
    if ((number) >= HVC_PKVM_ONLY)                                                                                     \
        assert_not_supported(f->el2, 1, HVC_HOST_BASE + (number));
    HYP_HOST_CALL_MAP(X)
#undef X
    /* Any EL2 has this one; there is just no vcpu yet. */
    assert_int_equal(el2_call(f->el2, 1, HVC_vcpu_run, f->pvm.host_vcpu[0], 0, 0, 0), -HYP_EINVAL);
    assert_int_equal(el2_call(f->el2, 1, HVC_prot_finalize, 0, 0, 0, 0), 0);
    assert_int_equal(el2_call(f->el2, 1, HVC_prot_finalize, 0, 0, 0, 0), -HYP_EPERM);
    assert_true(EL2_CALL(f->el2, reserve_vm) > 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_protected),
        TEST(test_np),
        TEST(test_attributes_of_protected),
        TEST(test_init_vm),
        TEST(test_init_vcpu),
        TEST(test_all_handles),
        TEST(test_dispatch),
        TEST(test_before_finalize),
    };

    return cmocka_run_group_tests_name("el2_errors", tests, NULL, NULL);
}
