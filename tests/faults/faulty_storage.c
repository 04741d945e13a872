// Makes calls of the C library fail below one folder, as a full disk, a quota or a network folder does. It is
// preloaded into a process (LD_PRELOAD), so that every library of the process is affected.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char folder[4096];
static int error_number;   // of calls that fail; 0 for none
static long bytes_left;    // before writes fail, for a full disk; -1 to count calls instead
static long calls_left;    // before calls fail
static long seconds_per_call_ms;
static long calls, bytes, failed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fault_arm(const char *path, int number, long max_bytes, long max_calls, long delay_ms) {
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s", path);
    error_number = number, bytes_left = max_bytes, calls_left = max_calls, seconds_per_call_ms = delay_ms;
    calls = bytes = failed = 0;
    pthread_mutex_unlock(&lock);
}

long fault_calls(void) { return calls; }
long fault_bytes(void) { return bytes; }
long fault_failed(void) { return failed; }

static int is_below(const char *path) {
    size_t length = strlen(folder);
    return length && path && !strncmp(path, folder, length);
}

static int is_file_below(int fd) {
    char link[64], path[4096];
    if (!*folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

// The number of bytes that may be written, -1 with errno if the call fails. `size` is 0 for calls that write none.
static ssize_t allowed(size_t size) {
    long delay;
    ssize_t result = size;
    pthread_mutex_lock(&lock);
    delay = seconds_per_call_ms;
    calls++;
    if (error_number && bytes_left >= 0) {
        if (size && !bytes_left) result = -1;
        else if ((long)size > bytes_left) result = bytes_left;
        if (result > 0) bytes_left -= result;
    } else if (error_number && calls > calls_left) {
        result = -1;
    }
    if (result > 0) bytes += result;
    if (result < 0) failed++;
    pthread_mutex_unlock(&lock);
    if (delay) {
        struct timespec pause = {delay / 1000, delay % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    if (result < 0) errno = error_number;
    return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *buffer, size_t size) {
    ssize_t count = is_file_below(fd) ? allowed(size) : (ssize_t)size;
    return count < 0 ? -1 : REAL(write)(fd, buffer, count);
}

ssize_t pwrite(int fd, const void *buffer, size_t size, off_t at) {
    ssize_t count = is_file_below(fd) ? allowed(size) : (ssize_t)size;
    return count < 0 ? -1 : REAL(pwrite)(fd, buffer, count, at);
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t at) {
    ssize_t count = is_file_below(fd) ? allowed(size) : (ssize_t)size;
    return count < 0 ? -1 : REAL(pwrite64)(fd, buffer, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    size_t size = 0;
    for (int i = 0; i < n; i++) size += parts[i].iov_len;
    if (!is_file_below(fd)) return REAL(writev)(fd, parts, n);
    ssize_t count = allowed(size);
    if (count < 0) return -1;
    if ((size_t)count == size) return REAL(writev)(fd, parts, n);
    size_t first = parts[0].iov_len < (size_t)count ? parts[0].iov_len : (size_t)count;
    return REAL(write)(fd, parts[0].iov_base, first);
}

int fsync(int fd) { return is_file_below(fd) && allowed(0) < 0 ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return is_file_below(fd) && allowed(0) < 0 ? -1 : REAL(fdatasync)(fd); }
int mkdir(const char *path, mode_t mode) { return is_below(path) && allowed(0) < 0 ? -1 : REAL(mkdir)(path, mode); }
int rename(const char *from, const char *to) { return is_below(to) && allowed(0) < 0 ? -1 : REAL(rename)(from, to); }

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...) {                        \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                   \
        if (is_below(path) && allowed(0) < 0) return -1;                \
        return REAL(name)(path, flags, mode);                           \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                    \
    int name(int at, const char *path, int flags, ...) {                \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                   \
        if (is_below(path) && allowed(0) < 0) return -1;                \
        return REAL(name)(at, path, flags, mode);                       \
    }
OPENAT(openat)
OPENAT(openat64)
