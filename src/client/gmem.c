/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fakehyp_pin {
    struct fh_object object;
    uint64_t id;
};

void fh_file_put_locked(struct fh_file *file)
{
    if (--file->refs)
        return;
    close(file->fd);
    free(file);
}

static void release_gmem(struct fh_object *object)
{
    struct fakehyp_gmem *gmem = (struct fakehyp_gmem *)object;

    fh_object_remove(object);
    pthread_mutex_lock(&fh_lock);
    fh_file_put_locked(gmem->file);
    pthread_mutex_unlock(&fh_lock);
    free(gmem);
}

static void tell_close(struct fakehyp *fh, uint64_t id)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GmemClose body = FAKEHYP__GMEM_CLOSE__INIT;

    body.gmem = id;
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_CLOSE;
    request.gmem_close = &body;
    fh_call_ack(fh, "gmem_close", &request);
}

/* Makes the handle of a GmemReply; fd is taken over. */
static int adopt(struct fakehyp *fh, const Fakehyp__GmemReply *reply, int fd, struct fakehyp_gmem **out)
{
    struct fakehyp_gmem *gmem = calloc(1, sizeof(*gmem));
    struct fh_file *file = calloc(1, sizeof(*file));
    struct stat st;
    int rc = 0;

    if (!gmem || !file)
        rc = fh_fail(-ENOMEM, "guest_memfd: out of memory");
    else if (fd < 0 || fstat(fd, &st))
        rc = fh_fail(-EPROTO, "guest_memfd: fakehypd sent no usable descriptor");
    if (rc) {
        free(gmem);
        free(file);
        if (fd >= 0)
            close(fd);
        tell_close(fh, reply->gmem);
        return rc;
    }
    *file = (struct fh_file){.refs = 1,
                             .fd = fd,
                             .dev = st.st_dev,
                             .ino = st.st_ino,
                             .id = reply->gmem,
                             .size = reply->size,
                             .flags = reply->flags};
    gmem->file = file;
    fh_object_add(fh, &gmem->object, release_gmem);
    *out = gmem;
    return 0;
}

int fakehyp_gmem_create(struct fakehyp_vm *vm, uint64_t size, uint64_t flags, struct fakehyp_gmem **out)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GmemCreate body = FAKEHYP__GMEM_CREATE__INIT;
    struct fh_call_options options = {.what = "gmem_create", .expect = FAKEHYP__REPLY__BODY_GMEM, .fd = -1};
    struct fh_answer answer;

    *out = NULL;
    body.vm = vm->id;
    body.size = size;
    body.flags = flags;
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_CREATE;
    request.gmem_create = &body;
    int rc = fh_call(vm->object.fh, &options, &request, &answer);
    if (rc == 0) {
        rc = adopt(vm->object.fh, answer.reply->gmem, answer.fd, out);
        answer.fd = -1;
    } else if (answer.reply && answer.reply->body_case == FAKEHYP__REPLY__BODY_GMEM) {
        /* It exists, but its descriptor did not arrive. */
        tell_close(vm->object.fh, answer.reply->gmem->gmem);
        fh_fail(rc, "gmem_create: no descriptor left for the guest_memfd: close some, or raise the limit (ulimit -n)");
    }
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_gmem_import(struct fakehyp *fh, int fd, struct fakehyp_gmem **out)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__GmemImport body = FAKEHYP__GMEM_IMPORT__INIT;
    struct fh_call_options options = {.what = "gmem_import", .expect = FAKEHYP__REPLY__BODY_GMEM, .fd = fd};
    struct fh_answer answer;

    *out = NULL;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return fh_fail(-errno, "gmem_import: descriptor %d: %s", fd, strerror(errno));
    request.body_case = FAKEHYP__REQUEST__BODY_GMEM_IMPORT;
    request.gmem_import = &body;
    int rc = fh_call(fh, &options, &request, &answer);
    if (rc == 0)
        rc = adopt(fh, answer.reply->gmem, own, out);
    else
        close(own);
    fh_answer_free(&answer);
    return rc;
}

void fakehyp_gmem_close(struct fakehyp_gmem *gmem)
{
    if (!gmem)
        return;
    tell_close(gmem->object.fh, gmem->file->id);
    release_gmem(&gmem->object);
}

int fakehyp_gmem_fd(const struct fakehyp_gmem *gmem)
{
    return gmem->file->fd;
}

uint64_t fakehyp_gmem_id(const struct fakehyp_gmem *gmem)
{
    return gmem->file->id;
}

uint64_t fakehyp_gmem_size(const struct fakehyp_gmem *gmem)
{
    return gmem->file->size;
}

/* Keeps who held a busy page for fakehyp_last_holders(). */
static const Fakehyp__ConvertReply *note_conversion(const struct fh_answer *answer)
{
    if (!answer->reply || answer->reply->body_case != FAKEHYP__REPLY__BODY_CONVERT)
        return NULL;
    fh_note_holders(answer->reply->convert);
    return answer->reply->convert;
}

int fakehyp_set_memory_attributes2(struct fakehyp_gmem *gmem, struct fakehyp_memory_attributes2 *attributes)
{
    static const uint64_t zero[sizeof(attributes->reserved) / sizeof(attributes->reserved[0])];
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Convert body = FAKEHYP__CONVERT__INIT;
    struct fh_call_options options = {.what = "convert", .expect = FAKEHYP__REPLY__BODY_ACK, .fd = -1};
    struct fh_answer answer;

    fh_note_holders(NULL);
    /* reserved[] does not travel; what flags are for is the VM's abi to say. */
    if (memcmp(attributes->reserved, zero, sizeof(zero)))
        return fh_fail(-EINVAL, "convert: reserved must be 0");
    body.gmem = gmem->file->id;
    body.offset = attributes->offset;
    body.size = attributes->size;
    body.attributes = attributes->attributes;
    body.flags = attributes->flags;
    request.body_case = FAKEHYP__REQUEST__BODY_CONVERT;
    request.convert = &body;
    int rc = fh_call(gmem->object.fh, &options, &request, &answer);
    const Fakehyp__ConvertReply *convert = note_conversion(&answer);
    if (convert && convert->error_offset_valid)
        attributes->error_offset = convert->error_offset;
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_set_memory_attributes(struct fakehyp_vm *vm, uint64_t address, uint64_t size, uint64_t attributes)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__SetMemoryAttributes body = FAKEHYP__SET_MEMORY_ATTRIBUTES__INIT;
    struct fh_call_options options = {.what = "set_memory_attributes", .expect = FAKEHYP__REPLY__BODY_ACK, .fd = -1};
    struct fh_answer answer;

    fh_note_holders(NULL);
    body.vm = vm->id;
    body.address = address;
    body.size = size;
    body.attributes = attributes;
    request.body_case = FAKEHYP__REQUEST__BODY_SET_MEMORY_ATTRIBUTES;
    request.set_memory_attributes = &body;
    int rc = fh_call(vm->object.fh, &options, &request, &answer);
    note_conversion(&answer);
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_convert(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t size, uint64_t attributes,
                    uint64_t *error_offset)
{
    struct fakehyp_memory_attributes2 args = {.offset = offset, .size = size, .attributes = attributes};
    int rc = fakehyp_set_memory_attributes2(gmem, &args);

    if (error_offset && (rc == -EAGAIN || rc == -EBUSY || rc == -EPERM || rc == -ENOMEM))
        *error_offset = args.error_offset;
    return rc;
}

int fakehyp_fallocate(struct fakehyp_gmem *gmem, int mode, int64_t offset, int64_t length)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Fallocate body = FAKEHYP__FALLOCATE__INIT;

    body.gmem = gmem->file->id;
    body.mode = (uint32_t)mode;
    body.offset = offset;
    body.length = length;
    request.body_case = FAKEHYP__REQUEST__BODY_FALLOCATE;
    request.fallocate = &body;
    return fh_call_ack(gmem->object.fh, "fallocate", &request);
}

int fakehyp_punch(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t length)
{
    if (offset > INT64_MAX || length > INT64_MAX)
        return fh_fail(-EINVAL, "punch: offset %#llx, length %#llx: a loff_t cannot be that large",
                       (unsigned long long)offset, (unsigned long long)length);
    return fakehyp_fallocate(gmem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (int64_t)offset, (int64_t)length);
}

/* ---- references ------------------------------------------------------------------------------------------------ */

static void release_pin(struct fh_object *object)
{
    fh_object_remove(object);
    free(object);
}

int fakehyp_pin(struct fakehyp_gmem *gmem, uint64_t offset, uint64_t length, enum fakehyp_pin_kind kind,
                const char *label, struct fakehyp_pin **out)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Pin body = FAKEHYP__PIN__INIT;
    struct fh_call_options options = {.what = "pin", .expect = FAKEHYP__REPLY__BODY_PIN, .fd = -1};
    struct fh_answer answer;

    *out = NULL;
    struct fakehyp_pin *pin = calloc(1, sizeof(*pin));
    if (!pin)
        return fh_fail(-ENOMEM, "pin: out of memory");
    body.gmem = gmem->file->id;
    body.offset = offset;
    body.size = length;
    body.kind = (uint32_t)kind;
    body.label = (char *)(label ? label : "");
    request.body_case = FAKEHYP__REQUEST__BODY_PIN;
    request.pin = &body;
    int rc = fh_call(gmem->object.fh, &options, &request, &answer);
    if (rc == 0) {
        pin->id = answer.reply->pin->pin;
        fh_object_add(gmem->object.fh, &pin->object, release_pin);
        *out = pin;
    } else {
        free(pin);
    }
    fh_answer_free(&answer);
    return rc;
}

int fakehyp_unpin(struct fakehyp_pin *pin)
{
    Fakehyp__Request request = FAKEHYP__REQUEST__INIT;
    Fakehyp__Unpin body = FAKEHYP__UNPIN__INIT;

    if (!pin)
        return 0;
    body.pin = pin->id;
    request.body_case = FAKEHYP__REQUEST__BODY_UNPIN;
    request.unpin = &body;
    int rc = fh_call_ack(pin->object.fh, "unpin", &request);
    release_pin(&pin->object);
    return rc;
}
