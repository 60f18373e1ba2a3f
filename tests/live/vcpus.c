/* SPDX-License-Identifier: BSD-2-Clause */
/* Several vCPUs, several VMs, and guests that do not answer. */
#include "tests/common/live_file.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NR_VMS 4
#define NR_SLOTS 64
#define HANG_NS UINT64_C(10000000000)

/* A thread that runs one vCPU until its puppet waits for the next command. */
struct runner {
    struct puppet *puppet;
    pthread_t thread;
    atomic_int end;
};

static void *run(void *arg)
{
    struct runner *r = arg;
    int end;

    /* Somebody else may just have looked whether the vCPU is taken. */
    while ((end = puppet_go(r->puppet)) == -EBUSY)
        rig_sleep_ms(1);
    atomic_store(&r->end, end);
    return NULL;
}

static void start(struct runner *r, struct puppet *p, enum puppet_op op, uint64_t a, uint64_t b)
{
    r->puppet = p;
    atomic_store(&r->end, INT32_MIN);
    puppet_give(p, op, a, b, 0);
    assert_int_equal(pthread_create(&r->thread, NULL, run, r), 0);
}

static void join(struct runner *r)
{
    pthread_join(r->thread, NULL);
    assert_int_equal(atomic_load(&r->end), PUPPET_DONE);
}

static uint64_t guest_u64(struct puppet *p, uint64_t ipa)
{
    uint64_t value;
    puppet_read(p, ipa, &value, sizeof(value));
    return value;
}

static void two_vcpus(void **state)
{
    struct runner r[2];
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.vcpus = 2});
    for (unsigned i = 0; i < 2; i++)
        start(&r[i], &v.puppet[i], PUPPET_COUNT, (2 + i) * PAGE, 200000);
    for (unsigned i = 0; i < 2; i++)
        join(&r[i]);
    /* Each sees what the other wrote. */
    assert_int_equal(guest_u64(&v.puppet[0], 3 * PAGE), 200000);
    assert_int_equal(guest_u64(&v.puppet[1], 2 * PAGE), 200000);
    assert_int_equal(puppet_share(&v.puppet[0], 3 * PAGE), 0);
    assert_int_equal(puppet_unshare(&v.puppet[1], 3 * PAGE), 0);
    puppet_exit(&v.puppet[0], 5);
    pvm_destroy(&v);
}

/* One vCPU counts in a page without pause while the other one shares and unshares that very page. */
static void shared_under_way(void **state)
{
    struct runner r;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.vcpus = 2});
    /* It counts in one run, which an emulated CPU takes many seconds for. */
    v.run_timeout_ms = 60000;
    start(&r, &v.puppet[1], PUPPET_COUNT, PAGE, 200000000);
    unsigned rounds = 0;
    while (atomic_load(&r.end) == INT32_MIN || rounds < 20) {
        assert_int_equal(puppet_share(&v.puppet[0], PAGE), 0);
        assert_int_equal(puppet_unshare(&v.puppet[0], PAGE), 0);
        rounds++;
    }
    join(&r);
    rig_note("shared_under_way: %u rounds during 200000000 increments", rounds);
    assert_int_equal(guest_u64(&v.puppet[0], PAGE), 200000000);
    pvm_destroy(&v);
}

static void several_vms(void **state)
{
    struct pvm v[NR_VMS];
    char buf[16];

    for (unsigned i = 0; i < NR_VMS; i++) {
        pvm_create(&v[i], *state, &(struct pvm_config){.mode = (enum fakehyp_unshare_mode)(i % 2)});
        snprintf(buf, sizeof(buf), "guest %u", i);
        puppet_write(&v[i].puppet[0], PAGE, buf, 8);
    }
    for (unsigned i = 0; i < NR_VMS; i++) {
        assert_int_equal(puppet_share(&v[i].puppet[0], PAGE), 0);
        snprintf(buf, sizeof(buf), "guest %u", i);
        assert_string_equal((char *)v[i].view + PAGE, buf);
        for (unsigned j = i + 1; j < NR_VMS; j++)
            assert_refused(v[j].view + PAGE);
    }
    assert_int_equal(rig_count("guests"), NR_VMS);
    rig_audit(*state);
    /* One goes, the others do not notice. */
    pvm_destroy(&v[1]);
    for (unsigned i = 0; i < NR_VMS; i++) {
        if (i == 1)
            continue;
        assert_int_equal(puppet_unshare(&v[i].puppet[0], PAGE), 0);
        assert_refused(v[i].view + PAGE);
        pvm_destroy(&v[i]);
    }
}

static void one_after_another(void **state)
{
    struct pvm v;

    for (unsigned i = 0; i < 20; i++) {
        pvm_create(&v, *state, &(struct pvm_config){.pages = 8});
        /* Nothing is left of the VM before. */
        assert_int_equal(puppet_byte(&v.puppet[0], 3 * PAGE), 0);
        puppet_write(&v.puppet[0], 3 * PAGE, "secret", 7);
        if (i % 2)
            puppet_exit(&v.puppet[0], 0);
        pvm_destroy(&v);
    }
}

static void timeouts(void **state)
{
    struct runner r;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.vcpus = 2});
    puppet_byte(&v.puppet[0], 0);
    v.run_timeout_ms = 30;
    puppet_give(&v.puppet[0], PUPPET_COUNT, 0, UINT64_C(2000000000), 0);
    unsigned timeouts_seen = 0;
    int rc;
    while ((rc = puppet_go(&v.puppet[0])) == -ETIMEDOUT)
        timeouts_seen++;
    assert_int_equal(rc, PUPPET_DONE);
    assert_true(timeouts_seen > 0);
    assert_int_equal(guest_u64(&v.puppet[0], 0), 2000000000);
    /* One thread a vCPU. */
    v.run_timeout_ms = 60000;
    start(&r, &v.puppet[0], PUPPET_COUNT, PAGE, UINT64_C(2000000000));
    /* Until that thread runs it. */
    for (unsigned ms = 0; ms < 10000 && (rc = fakehyp_vcpu_run(v.puppet[0].vcpu, 0)) == -ETIMEDOUT; ms += 5)
        rig_sleep_ms(5);
    assert_int_equal(rc, -EBUSY);
    join(&r);
    pvm_destroy(&v);
}

static int raise_flag(struct fakehyp_guest *guest, void *arg)
{
    (void)guest;
    atomic_store((atomic_int *)arg, 1);
    return 7;
}

/* A run that times out has begun, also when the guest was still on its way. */
static void goes_on_without_waiting(void **state)
{
    atomic_int *flag = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct fakehyp_gmem *gmem;
    struct fakehyp_vcpu *vcpu;
    struct fakehyp_vm *vm;

    assert_ptr_not_equal(flag, MAP_FAILED);
    must(fakehyp_vm_create(*state, NULL, &vm));
    must(fakehyp_gmem_create(vm, NR_SLOTS * PAGE, 0, &gmem));
    /* The guest is attached when it has mapped them all. */
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        must(fakehyp_set_memory_region(vm, i, i * PAGE, PAGE, gmem, i * PAGE));
    must(fakehyp_vcpu_create(vm, 0, &vcpu));
    must(fakehyp_guest_start(vm, raise_flag, flag));
    int rc = fakehyp_vcpu_run(vcpu, 0);
    assert_true(rc == 0 || rc == -ETIMEDOUT);
    for (unsigned i = 0; i < 5000 && !atomic_load(flag); i++)
        rig_sleep_ms(1);
    assert_int_equal(atomic_load(flag), 1);
    must(fakehyp_vcpu_run(vcpu, 5000));
    assert_int_equal(fakehyp_vcpu_state(vcpu)->system_event.type, FAKEHYP_SYSTEM_EVENT_SHUTDOWN);
    assert_int_equal(fakehyp_vcpu_state(vcpu)->system_event.data, 7);
    must(fakehyp_vm_destroy(vm));
    fakehyp_gmem_close(gmem);
    munmap(flag, PAGE);
}

/* VM destroyed while a thread is inside its vCPU. */
static void destroyed_under_way(void **state)
{
    struct runner r;
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.vcpus = 2});
    start(&r, &v.puppet[0], PUPPET_COUNT, PAGE, UINT64_MAX);
    rig_sleep_ms(30);
    uint64_t begin = rig_now_ns();
    kill(fakehyp_guest_pid(v.vm), SIGKILL);
    pthread_join(r.thread, NULL);
    assert_int_equal(atomic_load(&r.end), PUPPET_ENDED);
    assert_int_equal(v.puppet[0].run->system_event.type, FAKEHYP_SYSTEM_EVENT_CRASH);
    assert_true(rig_now_ns() - begin < HANG_NS);
    pvm_destroy(&v);
}

/* Stopped by a debugger, say: a conversion of what it has mapped shared is refused with words, or done. */
static void stopped_guest(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    pid_t pid = fakehyp_guest_pid(v.vm);
    assert_int_equal(puppet_share(&v.puppet[0], PAGE), 0);
    assert_int_equal(puppet_share(&v.puppet[0], 2 * PAGE), 0);
    puppet_write(&v.puppet[0], PAGE, "from the guest", 15);
    v.ignore = true;
    puppet_give(&v.puppet[0], PUPPET_CALL, HVC_MEM_UNSHARE, PAGE, 0);
    assert_int_equal(puppet_go(&v.puppet[0]), PUPPET_NEEDS);
    rig_stop_child(pid);
    /* Memory that it does not have mapped as shared asks nothing of it. */
    must(fakehyp_convert(v.gmem, 2 * PAGE, PAGE, FAKEHYP_SHARED, NULL));
    uint64_t begin = rig_now_ns();
    int rc = pvm_convert(&v, 1, 1, FAKEHYP_PRIVATE);
    uint64_t took = rig_now_ns() - begin;
    rig_note("stopped_guest: convert %d after %.3f s%s%s", rc, (double)took / 1e9, rc ? ": " : "",
             rc ? fakehyp_last_error() : "");
    assert_true(took < UINT64_C(20000000000));
    if (rc) {
        assert_true(strlen(fakehyp_last_error()) > 10);
        assert_string_equal((char *)v.view + PAGE, "from the guest");
    } else {
        assert_refused(v.view + PAGE);
    }
    kill(pid, SIGCONT);
    if (rc)
        must(pvm_convert(&v, 1, 1, FAKEHYP_PRIVATE));
    must(puppet_go(&v.puppet[0]));
    assert_int_equal(v.puppet[0].command->result, 0);
    v.ignore = false;
    assert_refused(v.view + PAGE);
    must(puppet_do(&v.puppet[0], PUPPET_READ, PAGE, 15, 0));
    assert_string_equal((char *)v.puppet[0].command->data, "from the guest");
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(puppet_share(&v.puppet[0], PAGE), 0);
        assert_reads(v.view + PAGE, 'f');
        assert_int_equal(puppet_unshare(&v.puppet[0], PAGE), 0);
        assert_refused(v.view + PAGE);
    }
    pvm_destroy(&v);
}

/*
 * After a conversion that gave up on a stopped guest the guest's agent still
 * does what it was asked for, late: the guest must see its page all the same.
 */
static void stopped_guest_goes_on(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    pid_t pid = fakehyp_guest_pid(v.vm);
    assert_int_equal(puppet_share(&v.puppet[0], PAGE), 0);
    puppet_write(&v.puppet[0], PAGE, "from the guest", 15);
    rig_stop_child(pid);
    assert_int_equal(pvm_convert(&v, 1, 1, FAKEHYP_PRIVATE), -ETIMEDOUT);
    kill(pid, SIGCONT);
    strcpy((char *)v.view + PAGE, "from the VMM");
    must(puppet_do(&v.puppet[0], PUPPET_READ, PAGE, 15, 0));
    assert_string_equal((char *)v.puppet[0].command->data, "from the VMM");
    puppet_write(&v.puppet[0], PAGE, "and back", 9);
    assert_string_equal((char *)v.view + PAGE, "and back");
    rig_audit(v.fh);
    pvm_destroy(&v);
}

/* A stopped guest does not keep its VM from going. */
static void stopped_guest_destroyed(void **state)
{
    struct pvm v;

    pvm_create(&v, *state, &(struct pvm_config){.pages = 16});
    puppet_write(&v.puppet[0], PAGE, "x", 1);
    rig_stop_child(fakehyp_guest_pid(v.vm));
    uint64_t begin = rig_now_ns();
    pvm_destroy(&v);
    assert_true(rig_now_ns() - begin < HANG_NS);
}

/* ---- more threads than vCPUs --------------------------------------------------------------------------------------
 */

#define NR_THREADS 40u

struct storer {
    const struct fakehyp_guest *guest;
    uint64_t page;
};

static void *store(void *arg)
{
    const struct storer *s = arg;
    fakehyp_guest_store(s->guest, s->page * PAGE, 1, s->page + 1);
    return NULL;
}

static int store_by_threads(struct fakehyp_guest *guest, void *arg)
{
    struct storer storer[NR_THREADS];
    pthread_t thread[NR_THREADS];

    (void)arg;
    for (unsigned i = 0; i < NR_THREADS; i++) {
        storer[i] = (struct storer){guest, i};
        if (pthread_create(&thread[i], NULL, store, &storer[i]))
            return 1;
    }
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < NR_THREADS; i++)
        if (fakehyp_guest_load(guest, i * PAGE, 1) != i + 1)
            return 2;
    return 0;
}

/* CPU time of the daemon in milliseconds. */
static uint64_t daemon_cpu_ms(void)
{
    unsigned long long user = 0, system = 0;
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)rig.pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    int n = fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
    fclose(f);
    assert_int_equal(n, 2);
    return (user + system) * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK);
}

/* All wait for one vCPU, which is outside of the guest: none of them asks again and again meanwhile. */
static void threads_that_wait(void **state)
{
    struct fakehyp_vcpu *vcpu;
    struct file f;
    int rc;

    file_open(&f, state, NR_THREADS * PAGE);
    must(fakehyp_set_memory_region(f.vm, 0, 0, NR_THREADS * PAGE, f.gmem, 0));
    must(fakehyp_vcpu_create(f.vm, 0, &vcpu));
    must(fakehyp_guest_start(f.vm, store_by_threads, NULL));
    assert_int_equal(fakehyp_vcpu_run(vcpu, 5000), -EFAULT);
    rig_sleep_ms(100);
    uint64_t before = daemon_cpu_ms();
    rig_sleep_ms(400);
    uint64_t spent = daemon_cpu_ms() - before;
    rig_note("%u threads wait for a vCPU: fakehypd took %ju ms of 400 meanwhile", NR_THREADS, (uintmax_t)spent);
    assert_in_range(spent, 0, 100);
    must(fakehyp_vcpu_run_converting(vcpu, f.gmem, 0, 8000));
    assert_int_equal(fakehyp_vcpu_state(vcpu)->exit_reason, FAKEHYP_EXIT_SYSTEM_EVENT);
    rc = (int)fakehyp_vcpu_state(vcpu)->system_event.data;
    assert_int_equal(rc, 0);
    file_close(&f);
}

static const struct CMUnitTest tests[] = {
    live_test(two_vcpus),
    live_test(shared_under_way),
    live_test(several_vms),
    live_test(one_after_another),
    live_test(timeouts),
    live_test(goes_on_without_waiting),
    live_test(destroyed_under_way),
    live_test(stopped_guest),
    live_test(stopped_guest_goes_on),
    live_test(stopped_guest_destroyed),
    live_test(threads_that_wait),
};

RIG_MAIN(tests)
