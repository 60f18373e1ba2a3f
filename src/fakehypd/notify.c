/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/fakehypd/log.h"

void notify_service_manager(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;

    if (len == 0 || len >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return;
    if (sendto(sock, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
        log_warning("NOTIFY_SOCKET: %s", strerror(errno));
    close(sock);
}

void notify_fd(int fd)
{
    if (fd < 0)
        return;
    while (write(fd, "\n", 1) < 0)
        if (errno != EINTR) {
            log_warning("--notify-fd %d: %s", fd, strerror(errno));
            break;
        }
    close(fd);
}
