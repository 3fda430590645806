/* A disk that hangs: while the file HANG_WHILE exists, reads and writes of files below the folder
 * HANG_BELOW wait. Preloaded into a process by LD_PRELOAD. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_for(int fd)
{
    const char *below = getenv("HANG_BELOW"), *flag = getenv("HANG_WHILE");
    char link[64], path[4096];
    ssize_t length;

    if (below == NULL || flag == NULL || access(flag, F_OK) != 0)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    if (length < (ssize_t)strlen(below) || strncmp(path, below, strlen(below)) != 0)
        return;
    while (access(flag, F_OK) == 0)
        usleep(10000);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    wait_for(fd);
    return next(fd, buffer, size);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    wait_for(fd);
    return next(fd, buffer, size);
}
