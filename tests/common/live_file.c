/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/common/live_file.h"

#include <sys/mman.h>

uint8_t *file_map(struct file *f, void *hint, uint64_t length, uint64_t offset)
{
    void *view;

    must(fakehyp_map(f->gmem, hint, length, PROT_READ | PROT_WRITE, offset, &view));
    return view;
}

void file_open(struct file *f, void **state, uint64_t bytes)
{
    f->fh = *state;
    f->bytes = bytes;
    must(fakehyp_vm_create(f->fh, NULL, &f->vm));
    must(fakehyp_gmem_create(f->vm, bytes, FAKEHYP_GMEM_MMAP | FAKEHYP_GMEM_INIT_SHARED, &f->gmem));
    f->view = file_map(f, NULL, bytes, 0);
}

void file_close(struct file *f)
{
    rig_audit(f->fh);
    must(fakehyp_unmap(f->fh, f->view, f->bytes));
    fakehyp_gmem_close(f->gmem);
    must(fakehyp_vm_destroy(f->vm));
}

int file_convert(struct file *f, uint64_t page, uint64_t nr, uint64_t attributes)
{
    return fakehyp_convert(f->gmem, page * PAGE, nr * PAGE, attributes, NULL);
}
