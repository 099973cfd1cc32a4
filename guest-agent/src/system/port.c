#include "system/port.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "system/panic.h"
#include "system/uevents.h"

enum { PORT_WAIT_MS = 20000 };

static bool has_name(int dir, const char *port, const char *name)
{
	char path[300], text[64];
	ssize_t size;
	int fd;

	strcpy(path, port);
	strcat(path, "/name");
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	size = read(fd, text, sizeof text - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return !strcmp(text, name);
}

static int find_port(const char *name)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	char path[300] = "/dev/";
	struct dirent *entry;
	int fd = -1;

	if (!dir)
		return -1;
	while (fd < 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || !has_name(dirfd(dir), entry->d_name, name))
			continue;
		strcpy(path + 5, entry->d_name);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	closedir(dir);
	return fd;
}

int open_port(const char *name)
{
	int fd;

	while ((fd = find_port(name)) < 0)
		if (!uevents_wait(PORT_WAIT_MS))
			power_off("no virtio port for the agent");
	uevents_close();
	return fd;
}
