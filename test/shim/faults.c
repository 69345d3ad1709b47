/* Faults of disk and clock for a program that is started with this library preloaded.
 *
 * The file that PRISM_SHIM names is mapped: a counter of four bytes, four that count the faults given, then text. Whoever
 * changes the text adds one to the counter afterwards. Each line of the text is a rule:
 *
 *   CALL PREFIX ERROR AFTER     the call fails with this number from errno.h on a path beneath PREFIX, after AFTER good ones
 *   CALL PREFIX ~MS AFTER       the call takes MS milliseconds longer
 *   clock - ~MS 0               the time of day is MS milliseconds ahead (or behind)
 *
 * CALL is open, write, sync, rename, truncate. Only calls through the C library are seen. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SIZE 4096
#define RULES 16

struct rule {
    char call[12];
    char prefix[256];
    int error;
    int wait_ms;
    int after;
};

static volatile uint32_t *control;
static uint32_t seen;
static struct rule rules[RULES];
static int count;
static long long clock_ms;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void __attribute__((constructor)) begin(void) {
    const char *path = getenv("PRISM_SHIM");
    if (!path)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        control = map;
}

/* Reads the rules again if they were changed; called with the lock held. */
static void refresh(void) {
    if (*control == seen)
        return;
    char text[SIZE];
    seen = *control;
    memcpy(text, (const char *)control + 8, SIZE - 8);
    text[SIZE - 9] = 0;
    count = 0;
    clock_ms = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line && count < RULES; line = strtok_r(NULL, "\n", &save)) {
        struct rule *r = &rules[count];
        char what[32];
        if (sscanf(line, "%11s %255s %31s %d", r->call, r->prefix, what, &r->after) != 4)
            continue;
        r->error = what[0] == '~' ? 0 : atoi(what);
        r->wait_ms = what[0] == '~' ? atoi(what + 1) : 0;
        if (!strcmp(r->call, "clock"))
            clock_ms = atoll(what + 1);
        else
            count++;
    }
}

/* The error to give instead of a call on a path, or 0; waits if a rule says so. */
static int fault(const char *call, const char *path, int fd) {
    if (!control)
        return 0;
    int kept = errno, error = 0, wait_ms = 0;
    char own[512];
    pthread_mutex_lock(&lock);
    refresh();
    for (int i = 0; i < count; i++) {
        struct rule *r = &rules[i];
        if (strcmp(r->call, call))
            continue;
        if (!path) {
            char link[40];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(link, own, sizeof own - 1);
            own[n > 0 ? n : 0] = 0;
            path = own;
        }
        if (strncmp(path, r->prefix, strlen(r->prefix)))
            continue;
        if (r->after > 0) {
            r->after--;
            continue;
        }
        error = r->error;
        wait_ms = r->wait_ms;
        __sync_fetch_and_add(&control[1], 1);
        break;
    }
    pthread_mutex_unlock(&lock);
    if (wait_ms > 0) {
        struct timespec t = {wait_ms / 1000, (long)(wait_ms % 1000) * 1000000};
        nanosleep(&t, NULL);
    }
    errno = error ? error : kept;
    return error;
}

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

#define REAL(name, type) \
    static type real; \
    if (!real) \
        real = (type)next(#name);

#define OPENING(name, before, args) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    } \
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && path[0] == '/' && fault("open", path, -1)) \
        return -1; \
    return real args;

typedef int (*open_t)(const char *, int, ...);
int open(const char *path, int flags, ...) {
    REAL(open, open_t)
    OPENING(open, , (path, flags, mode))
}
int open64(const char *path, int flags, ...) {
    REAL(open64, open_t)
    OPENING(open64, , (path, flags, mode))
}
typedef int (*openat_t)(int, const char *, int, ...);
int openat(int at, const char *path, int flags, ...) {
    REAL(openat, openat_t)
    OPENING(openat, , (at, path, flags, mode))
}
int openat64(int at, const char *path, int flags, ...) {
    REAL(openat64, openat_t)
    OPENING(openat64, , (at, path, flags, mode))
}

typedef ssize_t (*write_t)(int, const void *, size_t);
ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(write, write_t)
    return fault("write", NULL, fd) ? -1 : real(fd, bytes, n);
}
typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    REAL(pwrite, pwrite_t)
    return fault("write", NULL, fd) ? -1 : real(fd, bytes, n, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    REAL(pwrite64, pwrite_t)
    return fault("write", NULL, fd) ? -1 : real(fd, bytes, n, at);
}
typedef ssize_t (*writev_t)(int, const struct iovec *, int);
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev, writev_t)
    return fault("write", NULL, fd) ? -1 : real(fd, parts, n);
}

typedef int (*fd_t)(int);
int fsync(int fd) {
    REAL(fsync, fd_t)
    return fault("sync", NULL, fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync, fd_t)
    return fault("sync", NULL, fd) ? -1 : real(fd);
}

typedef int (*rename_t)(const char *, const char *);
int rename(const char *from, const char *to) {
    REAL(rename, rename_t)
    return fault("rename", to, -1) ? -1 : real(from, to);
}

typedef int (*truncate_t)(int, off_t);
int ftruncate(int fd, off_t size) {
    REAL(ftruncate, truncate_t)
    return fault("truncate", NULL, fd) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64, truncate_t)
    return fault("truncate", NULL, fd) ? -1 : real(fd, size);
}

/* Milliseconds that the time of day is wrong by. */
static long long ahead(void) {
    if (!control)
        return 0;
    pthread_mutex_lock(&lock);
    refresh();
    long long ms = clock_ms;
    pthread_mutex_unlock(&lock);
    if (ms)
        __sync_fetch_and_add(&control[1], 1);
    return ms;
}

typedef int (*clock_t_)(clockid_t, struct timespec *);
int clock_gettime(clockid_t id, struct timespec *t) {
    REAL(clock_gettime, clock_t_)
    int result = real(id, t);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += ahead() / 1000;
    return result;
}
typedef int (*day_t)(struct timeval *, void *);
int gettimeofday(struct timeval *t, void *zone) {
    REAL(gettimeofday, day_t)
    int result = real(t, zone);
    if (!result)
        t->tv_sec += ahead() / 1000;
    return result;
}
typedef time_t (*time_t_)(time_t *);
time_t time(time_t *to) {
    REAL(time, time_t_)
    time_t now = real(NULL) + ahead() / 1000;
    if (to)
        *to = now;
    return now;
}
