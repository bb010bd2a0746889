/*
 * Stands between the broker and the C library's file operations (LD_PRELOAD), for the tests in
 * tests/crash. Files outside of the directory SHIM_DIR are left alone.
 *
 * Recording: with SHIM_TRACE, each change below the directory is appended to that file, in
 * the order in which the changes were made, and each flush with its beginning and its end. Flushes
 * are not passed on then: what is durable is decided by whoever reads the trace, and a test should
 * not depend on how fast a disk is.
 *
 * Faults: with SHIM_FAULTS, a directory, these files in it change what happens to log
 * segments:
 *   hold       flushes wait as long as it exists; while one waits, there is the file `held`
 *   fail-sync  the next flush fails with EIO, and removes the file
 *   no-space   writes fail with ENOSPC as long as it exists
 *
 * System calls are made directly, so nothing here can be intercepted a second time, and an
 * operation is recorded no matter which of the library's names for it was called. fallocate comes
 * from the broker as a system call and passes by; the length of a file is therefore looked at
 * before each operation on it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char dir[PATH_MAX], faults[PATH_MAX];
static size_t dir_len;
static int trace_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t flushes;

struct head {
    uint8_t kind;
    uint8_t zero[3];
    uint32_t path_len;
    uint64_t inode, a, b, data_len;
};

__attribute__((constructor)) static void start(void) {
    const char *value = getenv("SHIM_DIR");
    if (!value || strlen(value) >= sizeof dir) return;
    strcpy(dir, value);
    dir_len = strlen(dir);
    value = getenv("SHIM_FAULTS");
    if (value && strlen(value) < sizeof faults - 20) strcpy(faults, value);
    value = getenv("SHIM_TRACE");
    if (value) trace_fd = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    /* Numbers of flushes differ from one process to the next. */
    flushes = (uint64_t)getpid() << 32;
}

static int is_ours(const char *path) {
    return dir_len && strncmp(path, dir, dir_len) == 0 && path[dir_len] == '/';
}

/* The path of an open file, if it is one of ours. */
static int path_of(int fd, char *path) {
    path[0] = 0;
    if (!dir_len) return 0;
    int saved = errno;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    if (len <= 0) return 0;
    path[len] = 0;
    return is_ours(path);
}

static int size_and_inode(int fd, uint64_t *size, uint64_t *inode) {
    struct stat stat;
    if (fstat(fd, &stat)) return 0;
    *size = stat.st_size;
    *inode = stat.st_ino;
    return S_ISREG(stat.st_mode) ? 1 : 2;
}

/* Kinds: C a file was created, O an existing one opened, T emptied by that, W write (a: offset), L length set (a),
 * B and E beginning and end of a flush (a: number, b: success), R rename (data: new path),
 * U unlink, M mkdir, D rmdir, S size before an operation (a), ? a file may be created. W, L, R, U,
 * M, D and ? are recorded before the operation, F after it (a: success). */
static void record(char kind, const char *path, uint64_t inode, uint64_t a, uint64_t b, const void *data, size_t len) {
    if (trace_fd < 0) return;
    int saved = errno;
    struct head head = {.kind = kind, .path_len = strlen(path), .inode = inode, .a = a, .b = b, .data_len = len};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path_len}, {(void *)data, len}};
    size_t total = sizeof head + head.path_len + len;
    if (syscall(SYS_writev, trace_fd, parts, 3) != (long)total) abort();
    errno = saved;
}

static int fault(const char *path, const char *name) {
    if (!faults[0] || !strstr(path, "/log/")) return 0;
    char file[PATH_MAX];
    snprintf(file, sizeof file, "%.4000s/%s", faults, name);
    int saved = errno;
    int found = syscall(SYS_faccessat, AT_FDCWD, file, F_OK) == 0;
    errno = saved;
    return found;
}

static void fault_file(const char *name, int exists) {
    char file[PATH_MAX];
    snprintf(file, sizeof file, "%.4000s/%s", faults, name);
    int saved = errno;
    if (exists) {
        int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0) syscall(SYS_close, fd);
    } else {
        syscall(SYS_unlinkat, AT_FDCWD, file, 0);
    }
    errno = saved;
}

static void doze(long nanoseconds) {
    struct timespec time = {0, nanoseconds};
    nanosleep(&time, NULL);
}

/* Opening. */

static int open_file(int at, const char *path, int flags, mode_t mode) {
    if (trace_fd < 0 || at != AT_FDCWD || !is_ours(path)) return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int existed = stat(path, &before) == 0;
    if (!existed && (flags & O_CREAT)) record('?', path, 0, 0, 0, NULL, 0);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    uint64_t size = 0, inode = 0;
    if (fd >= 0 && size_and_inode(fd, &size, &inode) == 1) {
        if (!existed) {
            record('C', path, inode, 0, 0, NULL, 0);
        } else {
            record('O', path, inode, before.st_size, 0, NULL, 0);
            if (flags & O_TRUNC) record('T', path, inode, 0, 0, NULL, 0);
        }
    }
    if (!existed && (flags & O_CREAT)) record('F', path, inode, fd >= 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode)                                   \
    mode_t mode = 0;                                        \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                  \
        va_list list;                                       \
        va_start(list, flags);                              \
        mode = va_arg(list, mode_t);                        \
        va_end(list);                                       \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return open_file(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return open_file(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_file(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_file(at, path, flags, mode); }

/* Writing. */

static ssize_t write_file(int fd, const void *data, size_t len, off_t at, int positioned) {
    char path[PATH_MAX];
    uint64_t size, inode;
    if (path_of(fd, path) && size_and_inode(fd, &size, &inode) == 1) {
        if (fault(path, "no-space")) {
            errno = ENOSPC;
            return -1;
        }
        if (trace_fd >= 0) {
            pthread_mutex_lock(&lock);
            size_and_inode(fd, &size, &inode);
            if (!positioned) at = fcntl(fd, F_GETFL) & O_APPEND ? (off_t)size : lseek(fd, 0, SEEK_CUR);
            record('S', path, inode, size, 0, NULL, 0);
            record('W', path, inode, at, 0, data, len);
            ssize_t done = positioned ? syscall(SYS_pwrite64, fd, data, len, at) : syscall(SYS_write, fd, data, len);
            record('F', path, inode, done == (ssize_t)len, 0, NULL, 0);
            pthread_mutex_unlock(&lock);
            return done;
        }
    }
    return positioned ? syscall(SYS_pwrite64, fd, data, len, at) : syscall(SYS_write, fd, data, len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return write_file(fd, data, len, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) { return write_file(fd, data, len, at, 1); }
ssize_t write(int fd, const void *data, size_t len) { return write_file(fd, data, len, 0, 0); }

static int set_length(int fd, off_t len) {
    char path[PATH_MAX];
    uint64_t size, inode;
    if (trace_fd < 0 || !path_of(fd, path) || size_and_inode(fd, &size, &inode) != 1) return syscall(SYS_ftruncate, fd, len);
    pthread_mutex_lock(&lock);
    size_and_inode(fd, &size, &inode);
    record('S', path, inode, size, 0, NULL, 0);
    record('L', path, inode, len, 0, NULL, 0);
    int result = syscall(SYS_ftruncate, fd, len);
    record('F', path, inode, result == 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t len) { return set_length(fd, len); }
int ftruncate64(int fd, off_t len) { return set_length(fd, len); }

/* Flushing. sync_file_range does not count: it flushes neither metadata nor the disk's cache. */

static int flush(int fd, long call) {
    char path[PATH_MAX];
    uint64_t size, inode;
    /* The directory itself counts, though it is not below itself. */
    if (!path_of(fd, path) && (!dir_len || strcmp(path, dir))) return syscall(call, fd);
    if (fault(path, "hold")) {
        fault_file("held", 1);
        while (fault(path, "hold")) doze(500000);
        fault_file("held", 0);
    }
    if (fault(path, "fail-sync")) {
        fault_file("fail-sync", 0);
        errno = EIO;
        return -1;
    }
    if (trace_fd < 0) return syscall(call, fd);
    int kind = size_and_inode(fd, &size, &inode);
    pthread_mutex_lock(&lock);
    uint64_t number = ++flushes;
    if (kind == 1) {
        size_and_inode(fd, &size, &inode);
        record('S', path, inode, size, 0, NULL, 0);
    }
    record('B', path, inode, number, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    /* As long as a disk might take, and different each time. */
    doze(number * 2654435761u % 700000);
    pthread_mutex_lock(&lock);
    record('E', path, inode, number, 1, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return flush(fd, SYS_fsync); }
int fdatasync(int fd) { return flush(fd, SYS_fdatasync); }

/* Names. */

int rename(const char *from, const char *to) {
    if (trace_fd < 0 || !is_ours(from)) return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_lock(&lock);
    record('R', from, 0, 0, 0, to, strlen(to));
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    record('F', from, 0, result == 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

static int remove_name(const char *path, int flags) {
    if (trace_fd < 0 || !is_ours(path)) return syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    pthread_mutex_lock(&lock);
    record(flags ? 'D' : 'U', path, 0, 0, 0, NULL, 0);
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    record('F', path, 0, result == 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) { return remove_name(path, 0); }
int rmdir(const char *path) { return remove_name(path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    if (trace_fd < 0 || !is_ours(path)) return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    pthread_mutex_lock(&lock);
    record('M', path, 0, 0, 0, NULL, 0);
    int result = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    record('F', path, 0, result == 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
