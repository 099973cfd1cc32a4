#include "system/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proto.h"
#include "streams/job.h"
#include "system/root.h"

enum { PLACES = 14 };

/* Of the job that is about to start: the child has its own copy. */
static struct {
	char device[128];
	uint64_t bytes;
	bool read_only, mounted;
} wanted;

const char *volume_devices = "/dev/vd";

static int set(int context, const char *key)
{
	return (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, key, NULL, 0);
}

/*
 * The root of the file system as a mount without a place, or -1. One that is mounted already is the same file system.
 * Its unused inode tables are never zeroed: that would fill a file on the host which has holes there.
 */
static int open_files(void)
{
	const unsigned attributes = MOUNT_ATTR_NOATIME | (wanted.read_only ? MOUNT_ATTR_RDONLY : 0);
	int context = (int)syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC);

	if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", wanted.device, 0) ||
	    set(context, "noinit_itable") || (wanted.read_only && set(context, "ro")) ||
	    syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -1;
	return (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
}

static int grow_files(int mount)
{
	int directory = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return directory < 0 ? errno : grow_file_system(directory, wanted.bytes);
}

/* Grown before it has a place, so that a failure leaves nothing mounted. The process ends, and with it what it opened. */
static int provide(const char *path)
{
	int disk = open(wanted.device, O_RDONLY | O_CLOEXEC), mount, error;

	error = disk < 0 ? errno : wait_for_size(disk, wanted.bytes);
	if (error)
		return error;
	mount = open_files();
	if (mount < 0)
		return errno;
	error = wanted.read_only ? 0 : grow_files(mount);
	if (!error && !wanted.mounted &&
	    syscall(SYS_move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS))
		error = errno;
	return error;
}

/* Without a path it is mounted already, and only grows. */
static void volume_open(struct stream *s, const struct request *r)
{
	if (r->place >= PLACES || !r->has_length || (r->path && *r->path != '/'))
		return stream_finish(s, EINVAL, "volume");
	snprintf(wanted.device, sizeof wanted.device, "%s%c", volume_devices, (char)('b' + r->place));
	wanted.bytes = r->length;
	wanted.read_only = r->flags & FLAG_READ_ONLY;
	wanted.mounted = !r->path;
	job_start(s, provide, r->path, "volume");
}

const struct stream_ops volume_ops = {
	.name = OP_VOLUME,
	.open = volume_open,
	.signal = job_signal,
	.reaped = job_reaped,
};
