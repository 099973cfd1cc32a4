#include "system/module_disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { DISKS_MAX = 26, LIST_SIZE = 8192 };

static const char library[] = "/usr/lib/modules";

static ssize_t read_text(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, room - 1);

	if (fd >= 0)
		close(fd);
	text[size > 0 ? size : 0] = 0;
	return size;
}

bool find_disk(const char *name, char device[DEVICE_SIZE])
{
	for (int i = 0; i < DISKS_MAX; i++) {
		char path[] = "/sys/block/vda/serial", serial[32];

		path[strlen("/sys/block/vd")] = (char)('a' + i);
		if (read_text(path, serial, sizeof serial) < 0)
			return false;
		serial[strcspn(serial, "\n")] = 0;
		if (!strcmp(serial, name)) {
			snprintf(device, DEVICE_SIZE, "/dev/vd%c", 'a' + i);
			return true;
		}
	}
	return false;
}

/* Everybody may open those that check for themselves what he may do with them, as udev's rules have it. */
static mode_t mode_of(const char *name)
{
	return !strcmp(name, "fuse") || !strcmp(name, "net/tun") ? 0666 : 0600;
}

static void make_node(const char *name, unsigned major_number, unsigned minor_number)
{
	char path[128];
	int length = snprintf(path, sizeof path, "/dev/%s", name);
	char *slash = strchr(path + strlen("/dev/"), '/');

	if (length < 0 || (size_t)length >= sizeof path)
		return;
	if (slash) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
	if (!mknod(path, S_IFCHR | 0600, makedev(major_number, minor_number)))
		chmod(path, mode_of(name));
}

/* Lines of modules.devname are "MODULE NODE cMAJOR:MINOR". The kernel loads the module when the node is opened. */
static void make_nodes(const char *directory)
{
	static char list[LIST_SIZE];
	char path[256], name[64];
	unsigned major_number, minor_number;

	snprintf(path, sizeof path, "%s/modules.devname", directory);
	if (read_text(path, list, sizeof list) < 0)
		return;
	for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n"))
		if (sscanf(line, "%*s %63s c%u:%u", name, &major_number, &minor_number) == 3)
			make_node(name, major_number, minor_number);
}

void mount_module_disk(void)
{
	char device[DEVICE_SIZE], directory[160];
	struct utsname kernel;

	if (!find_disk("modules", device) || uname(&kernel))
		return;
	snprintf(directory, sizeof directory, "%s/%s", library, kernel.release);
	mkdir("/usr", 0755);
	mkdir("/usr/lib", 0755);
	mkdir(library, 0755);
	mkdir(directory, 0755);
	if (!mount(device, directory, "ext4", MS_RDONLY | MS_NOATIME | MS_NOSUID | MS_NODEV, NULL))
		make_nodes(directory);
}
