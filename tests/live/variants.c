/* SPDX-License-Identifier: BSD-2-Clause */
/* Hypervisors, policies, trackers, content modes and mistakes, chosen for a VM of real processes. */
#include "tests/common/live_puppet.h"

#include <errno.h>
#include <string.h>

#define VARIANT(...)                                                                                                   \
    {                                                                                                                  \
        .shared = true, .variant = { __VA_ARGS__ }                                                                     \
    }

static void refused(struct fakehyp *fh, const struct fakehyp_vm_config *config, int rc, const char *words)
{
    struct fakehyp_vm *vm;
    assert_int_equal(fakehyp_vm_create(fh, config, &vm), rc);
    if (!strstr(fakehyp_last_error(), words))
        fail_msg("\"%s\" does not say \"%s\"", fakehyp_last_error(), words);
}

static void wrong_choices(void **state)
{
    struct fakehyp *fh = *state;
    refused(fh, &(struct fakehyp_vm_config){.hyp = "xen"}, -EINVAL, "there is pkvm, sw-protected, firmware");
    refused(fh, &(struct fakehyp_vm_config){.policy = "Z"}, -EINVAL, "there is upstream, naive");
    refused(fh, &(struct fakehyp_vm_config){.policy = "C"}, -EOPNOTSUPP, "simulation");
    refused(fh, &(struct fakehyp_vm_config){.policy = "exclusive"}, -EOPNOTSUPP, "exclusive pin");
    refused(fh, &(struct fakehyp_vm_config){.tracker = "nowhere"}, -EINVAL, "there is inode, vm, folio, hyp");
    refused(fh, &(struct fakehyp_vm_config){.bugs = "d-no-refcheck,typo"}, -EINVAL, "no bug mode");
    refused(fh, &(struct fakehyp_vm_config){.abi = 7}, -EINVAL, "abi 7");
}

/* As VMM and guest see it: what the guest writes in private, and what of it is there when the page is shared again. */
static void round_trip(struct pvm *v, char *guest_sees, char *vmm_sees)
{
    struct puppet *p = &v->puppet[0];

    memcpy(v->view + 3 * PAGE, "hello", 6);
    must(pvm_convert(v, 3, 1, FAKEHYP_PRIVATE));
    assert_refused(v->view + 3 * PAGE);
    puppet_read(p, 3 * PAGE, guest_sees, 6);
    puppet_write(p, 3 * PAGE, "secret", 7);
    assert_refused(v->view + 3 * PAGE);
    rig_audit(v->fh);
    must(pvm_convert(v, 3, 1, FAKEHYP_SHARED));
    memcpy(vmm_sees, v->view + 3 * PAGE, 7);
    rig_audit(v->fh);
}

static void status_tells(struct fakehyp *fh, const char *key, const char *value)
{
    json_t *status = rig_query(fh, "status");
    const json_t *vms = json_object_get(status, "vms");
    assert_string_equal(json_string_value(json_object_get(json_array_get(vms, 0), key)), value);
    json_decref(status);
}

/* Nobody but the attribute: contents survive both ways, and the kernel itself reads what is private. */
static void sw_protected(void **state)
{
    const struct pvm_config config = VARIANT(.hyp = "sw-protected");
    char guest[8] = "", vmm[8] = "";
    struct pvm v;

    pvm_create(&v, *state, &config);
    status_tells(v.fh, "hyp", "sw-protected");
    round_trip(&v, guest, vmm);
    assert_string_equal(guest, "hello");
    assert_string_equal(vmm, "secret");
    /* The guest's mapping of a page goes with each conversion, and comes back as what the page is then. */
    puppet_write(&v.puppet[0], 3 * PAGE, "again", 6);
    assert_string_equal((char *)v.view + 3 * PAGE, "again");
    must(pvm_convert(&v, 0, 16, FAKEHYP_PRIVATE));
    puppet_read(&v.puppet[0], 3 * PAGE, guest, 6);
    assert_string_equal(guest, "again");
    pvm_destroy(&v);
}

/* Keys: nothing survives a conversion. */
static void firmware(void **state)
{
    const struct pvm_config config = VARIANT(.hyp = "firmware");
    char guest[8] = "", vmm[8] = "";
    struct pvm v;

    pvm_create(&v, *state, &config);
    round_trip(&v, guest, vmm);
    assert_memory_equal(guest, "\0\0\0\0\0\0", 6);
    assert_memory_equal(vmm, "\0\0\0\0\0\0\0", 7);
    pvm_destroy(&v);
}

/* vmsplice's reference does not stop policy A, and stops D; B gives up after its 10 ms. */
static void policies(void **state)
{
    static const struct {
        const char *policy;
        int with_get, with_pin;
    } cases[] = {{"D", -EAGAIN, -EAGAIN}, {"A", 0, -EAGAIN}, {"B", -EBUSY, -EBUSY}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct pvm_config config = VARIANT(.policy = cases[i].policy);
        struct fakehyp_pin *pin;
        struct pvm v;

        pvm_create(&v, *state, &config);
        v.view[5 * PAGE] = 1;
        must(fakehyp_pin(v.gmem, 5 * PAGE, PAGE, FAKEHYP_FOLL_GET, "vmsplice", &pin));
        assert_int_equal(pvm_convert(&v, 5, 1, FAKEHYP_PRIVATE), cases[i].with_get);
        must(fakehyp_unpin(pin));
        must(pvm_convert(&v, 5, 1, FAKEHYP_SHARED));
        must(fakehyp_pin(v.gmem, 5 * PAGE, PAGE, FAKEHYP_FOLL_LONGTERM, "VFIO", &pin));
        assert_int_equal(pvm_convert(&v, 5, 1, FAKEHYP_PRIVATE), cases[i].with_pin);
        must(fakehyp_unpin(pin));
        must(pvm_convert(&v, 5, 1, FAKEHYP_PRIVATE));
        pvm_destroy(&v);
    }
}

/* Where it is kept changes the interface and what is lost, and nothing of what a program sees otherwise. */
static void trackers(void **state)
{
    static const char *const names[] = {"inode", "vm", "folio"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct pvm_config config = VARIANT(.tracker = names[i]);
        bool by_vm = !strcmp(names[i], "vm"), by_folio = !strcmp(names[i], "folio");
        char byte = 0;
        struct pvm v;

        pvm_create(&v, *state, &config);
        status_tells(v.fh, "tracker", names[i]);
        v.view[3 * PAGE] = 7;
        assert_int_equal(pvm_convert(&v, 3, 1, FAKEHYP_PRIVATE), by_vm ? -ENOTTY : 0);
        assert_int_equal(fakehyp_set_memory_attributes(v.vm, 3 * PAGE, PAGE, FAKEHYP_PRIVATE), by_vm ? 0 : -ENOTTY);
        assert_refused(v.view + 3 * PAGE);
        v.ignore = by_vm; /* the puppet's VMM would convert by the file */
        puppet_read(&v.puppet[0], 3 * PAGE, &byte, 1);
        assert_int_equal(byte, 7);
        rig_audit(v.fh);
        /* The hole has the state that the file began with, where a folio is what carries it. */
        must(fakehyp_punch(v.gmem, 3 * PAGE, PAGE));
        if (by_folio)
            assert_reads(v.view + 3 * PAGE, 0);
        else
            assert_refused(v.view + 3 * PAGE);
        rig_audit(v.fh);
        pvm_destroy(&v);
    }
}

static void content_modes(void **state)
{
    const struct pvm_config config = VARIANT(.hyp = "sw-protected", .abi = 5);
    struct fakehyp_memory_attributes2 attr = {.offset = 3 * PAGE, .size = PAGE, .attributes = FAKEHYP_PRIVATE};
    struct pvm v;

    pvm_create(&v, *state, &config);
    v.view[3 * PAGE] = 7;
    attr.flags = 1; /* ZERO: not to private */
    assert_int_equal(fakehyp_set_memory_attributes2(v.gmem, &attr), -EOPNOTSUPP);
    attr.flags = 3;
    assert_int_equal(fakehyp_set_memory_attributes2(v.gmem, &attr), -EINVAL);
    attr.flags = 2; /* PRESERVE */
    must(fakehyp_set_memory_attributes2(v.gmem, &attr));
    attr.attributes = 0;
    must(fakehyp_set_memory_attributes2(v.gmem, &attr));
    assert_reads(v.view + 3 * PAGE, 7);
    attr.flags = 1; /* ZERO of what is shared already */
    must(fakehyp_set_memory_attributes2(v.gmem, &attr));
    assert_reads(v.view + 3 * PAGE, 0);
    v.view[3 * PAGE] = 7;
    attr.flags = 0; /* no promise, and to show that: scrambled */
    attr.attributes = FAKEHYP_PRIVATE;
    must(fakehyp_set_memory_attributes2(v.gmem, &attr));
    attr.flags = 2;
    attr.attributes = 0;
    must(fakehyp_set_memory_attributes2(v.gmem, &attr));
    assert_reads(v.view + 3 * PAGE, 0xab);
    rig_audit(v.fh);
    pvm_destroy(&v);
}

/* The hook that asks the hypervisor: what the guest owns stays private. */
static void ask_hyp(void **state)
{
    const struct pvm_config config = {.variant = {.ask_hyp = true}};
    struct pvm v;

    pvm_create(&v, *state, &config);
    puppet_write(&v.puppet[0], 3 * PAGE, "mine", 5);
    assert_int_equal(pvm_convert(&v, 2, 3, FAKEHYP_SHARED), -EPERM);
    assert_refused(v.view + 3 * PAGE);
    assert_int_equal(puppet_share(&v.puppet[0], 3 * PAGE), 0);
    assert_string_equal((char *)v.view + 3 * PAGE, "mine");
    pvm_destroy(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        live_test(wrong_choices), live_test(sw_protected),  live_test(firmware), live_test(policies),
        live_test(trackers),      live_test(content_modes), live_test(ask_hyp),
    };
    RIG_RUN(tests);
}
