/* Loaded into QEMU before its own libraries: opens the file that PANDASTACK_READONLY names for reading only, whatever
 * it is asked for, and every other file as asked.
 *
 * QEMU before 8.2 opens the file behind a machine's memory for writing even if it maps it privately. Of such a mapping
 * it writes nothing to the file, so a descriptor for reading does. */

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int open_file(const char *path, int flags, mode_t mode)
{
    const char *readonly = getenv("PANDASTACK_READONLY");

    if (readonly != NULL && path != NULL && strcmp(path, readonly) == 0)
        flags = (flags & ~(O_ACCMODE | O_CREAT | O_TRUNC)) | O_RDONLY;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                              \
    EXPORT int name(const char *path, int flags, ...)           \
    {                                                           \
        va_list arguments;                                      \
        va_start(arguments, flags);                             \
        mode_t mode = mode_of(flags, arguments);                \
        va_end(arguments);                                      \
        return open_file(path, flags, mode);                    \
    }

OPEN(open)
OPEN(open64)

/* What a fortified program calls when it gives no mode. */
EXPORT int __open_2(const char *path, int flags)
{
    return open_file(path, flags, 0);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return open_file(path, flags, 0);
}
