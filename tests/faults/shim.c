/* Stands between a process and the disk (LD_PRELOAD) and fails one call when it is told to.
 *
 *   SHIM_DIR   only files below this directory are watched
 *   SHIM_RULE  a file that holds one line "OP SUBSTRING ERRNO KEEP", read before each watched call;
 *              OP is "sync" or "write"; the next such call on a path with SUBSTRING fails with ERRNO,
 *              after KEEP bytes of it were written. The file is removed when it has happened.
 *              With "slow" as OP every sync of such a path takes ERRNO milliseconds longer, for as
 *              long as the file is there.
 *              With "kill" as OP the process is killed at the next write whose bytes hold SUBSTRING:
 *              before any of them is written when KEEP is 0, else after all of them are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    const char *directory = getenv("SHIM_DIR");
    return directory && strncmp(path, directory, strlen(directory)) == 0;
}

/* Whether the rule hits; then *keep bytes are to be written first, and errno is to become *code. */
static int hits(const char *operation, int fd, int *code, long *keep) {
    char path[PATH_MAX], wanted[16], part[128];
    const char *rule = getenv("SHIM_RULE");
    if (!rule || access(rule, F_OK) || !path_of(fd, path, sizeof path)) return 0;
    pthread_mutex_lock(&lock);
    int hit = 0;
    FILE *file = fopen(rule, "r");
    if (file) {
        if (fscanf(file, "%15s %127s %d %ld", wanted, part, code, keep) == 4)
            hit = !strcmp(wanted, operation) && strstr(path, part) != NULL;
        fclose(file);
        if (hit && strcmp(operation, "slow")) unlink(rule);
    }
    pthread_mutex_unlock(&lock);
    return hit;
}

/* Whether a write with these bytes is to be the last; *keep says whether it happens. */
static int is_last(int fd, const void *data, size_t size, long *keep) {
    char path[PATH_MAX], wanted[16], part[128];
    const char *rule = getenv("SHIM_RULE");
    int code;
    if (!rule || access(rule, F_OK) || !path_of(fd, path, sizeof path)) return 0;
    pthread_mutex_lock(&lock);
    int last = 0;
    FILE *file = fopen(rule, "r");
    if (file) {
        if (fscanf(file, "%15s %127s %d %ld", wanted, part, &code, keep) == 4)
            last = !strcmp(wanted, "kill") && memmem(data, size, part, strlen(part)) != NULL;
        fclose(file);
        if (last) unlink(rule);
    }
    pthread_mutex_unlock(&lock);
    return last;
}

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    int code;
    long keep;
    if (is_last(fd, data, size, &keep)) {
        if (keep) real(fd, data, size);
        kill(getpid(), SIGKILL);
        pause(); /* it may take a moment, in which nothing else must happen */
    }
    if (!hits("write", fd, &code, &keep)) return real(fd, data, size);
    if (keep > 0) real(fd, data, (size_t)keep < size ? (size_t)keep : size);
    errno = code;
    return -1;
}

static int failing_sync(const char *name, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    int code;
    long keep;
    if (hits("slow", fd, &code, &keep)) usleep((useconds_t)code * 1000);
    if (!hits("sync", fd, &code, &keep)) return real(fd);
    errno = code;
    return -1;
}

int fsync(int fd) { return failing_sync("fsync", fd); }
int fdatasync(int fd) { return failing_sync("fdatasync", fd); }
