#include "files/delete.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files/entry.h"
#include "proto.h"
#include "streams/job.h"

enum { DEPTH_MAX = 4000 };

/* Below the parent that was asked for: never through a symbolic link, never into another mount. */
static int open_directory(int parent, const char *name, bool nested)
{
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (nested ? O_NOFOLLOW : 0),
		.resolve = nested ? RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS : 0,
	};

	return (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
}

static int delete_at(int parent, const char *name, int depth);

static int delete_entries(int dir, int depth)
{
	_Alignas(8) char buffer[1024];
	bool again = true;
	long size;

	/* Removing entries moves the rest: read from the start until a whole pass finds nothing. */
	while (again) {
		again = false;
		lseek(dir, 0, SEEK_SET);
		while ((size = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0) {
			for (long at = 0; at < size;) {
				const struct raw_dirent *entry = (const void *)(buffer + at);
				int error = dots(entry->name) ? 0 : delete_at(dir, entry->name, depth + 1);

				if (error)
					return error;
				again |= !dots(entry->name);
				at += entry->length;
			}
		}
		if (size < 0)
			return errno;
	}
	return 0;
}

static int delete_at(int parent, const char *name, int depth)
{
	int dir, error;

	if (!unlinkat(parent, name, 0) || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return errno;
	if (depth > DEPTH_MAX)
		return ELOOP;
	dir = open_directory(parent, name, true);
	if (dir < 0)
		return errno == EXDEV ? EBUSY : errno;
	error = delete_entries(dir, depth);
	close(dir);
	if (!error && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
		error = errno;
	return error;
}

static int delete_tree(const char *path)
{
	char copy[4096];
	size_t length = strlen(path);
	char *slash;
	int parent, error;

	if (length >= sizeof copy)
		return ENAMETOOLONG;
	memcpy(copy, path, length + 1);
	while (length && copy[length - 1] == '/')
		copy[--length] = 0;
	slash = strrchr(copy, '/');
	if (!length || dots(slash ? slash + 1 : copy))
		return EINVAL;
	if (slash)
		*slash = 0;
	parent = open_directory(AT_FDCWD, !slash ? "." : slash == copy ? "/" : copy, false);
	if (parent < 0)
		return errno;
	error = delete_at(parent, slash ? slash + 1 : copy, 0);
	close(parent);
	return error;
}

static void delete_open(struct stream *s, const struct request *r)
{
	const char *path = r->path;

	if (!path)
		return stream_finish(s, EINVAL, "delete");
	/* Most are one file, for which no child is needed. */
	if (!unlink(path) || errno == ENOENT)
		return stream_finish(s, 0, NULL);
	if (errno == EISDIR || errno == EPERM)
		return job_start(s, delete_tree, path, "delete");
	stream_finish(s, errno, "delete");
}

const struct stream_ops delete_ops = {
	.name = OP_DELETE,
	.open = delete_open,
	.signal = job_signal,
	.reaped = job_reaped,
};
