/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/simjobs.h"

void run_task(void *arg)
{
    struct run_job *job = arg;
    job->done = false;
    job->rc = vcpu_run(job->vcpu, &job->run, &job->caller);
    job->done = true;
}

void start_run(struct simworld *w, struct run_job *job)
{
    sw_spawn(w, run_task, job);
    sw_settle(w);
}

void guest_task(void *arg)
{
    struct guest_job *job = arg;
    job->done = false;
    if (job->x[0])
        job->rc = sim_guest_hvc(job->vcpu, job->x, &job->x0);
    else
        job->rc = job->write ? sim_guest_write(job->vcpu, job->gpa, &job->byte, 1)
                             : sim_guest_read(job->vcpu, job->gpa, &job->byte, 1);
    job->done = true;
}

void start_guest(struct simworld *w, struct guest_job *job)
{
    sw_spawn(w, guest_task, job);
    sw_settle(w);
}

void destroy_task(void *arg)
{
    struct destroy_job *job = arg;
    struct caller caller = {0};
    job->rc = vm_destroy(job->vm, &caller);
    job->done = true;
}

void end_vm(struct simworld *w)
{
    assert_int_equal(vm_destroy(w->vm, &w->caller), 0);
    w->vm = NULL;
    sw_settle(w);
    sw_audit(w);
}
