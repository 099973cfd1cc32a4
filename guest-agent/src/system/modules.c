#include "system/modules.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LIST_SIZE = 4096 };

static void load_module(const char *name)
{
	char path[256] = "/modules/";
	size_t length = strlen(name);
	int fd;

	if (length > 200)
		return;
	strcpy(name[0] == '/' ? path : path + strlen(path), name);
	if (length < 3 || strcmp(name + length - 3, ".ko"))
		strcat(path, ".ko");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) {
		(void)!write(2, "agent: module ", 14);
		(void)!write(2, path, strlen(path));
		(void)!write(2, ": not loaded\n", 13);
	}
	if (fd >= 0)
		close(fd);
	unlink(path); /* the initramfs is memory that would stay used */
}

void load_modules(void)
{
	static char list[LIST_SIZE + 1];
	int fd = open("/modules.list", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? 0 : read(fd, list, LIST_SIZE);

	if (fd >= 0)
		close(fd);
	list[size > 0 ? size : 0] = 0;
	for (char *name = strtok(list, " \r\n"); name; name = strtok(NULL, " \r\n"))
		if (*name != '#')
			load_module(name);
	unlink("/modules.list");
	unlink("/init");
	rmdir("/modules");
}
