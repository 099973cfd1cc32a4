#include "system/boot.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system/module_disk.h"
#include "system/modules.h"
#include "system/net.h"
#include "system/root.h"
#include "system/size.h"
#include "system/uevents.h"

static void standard_descriptors(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		if (fd >= 0 && fd != i)
			dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void raise_limits(void)
{
	struct rlimit files = { 8192, 1048576 };

	setrlimit(RLIMIT_NOFILE, &files);
}

void boot(void)
{
	umask(022);
	mount_early();
	standard_descriptors();
	uevents_open();
	keep_memory();
	load_modules();
	switch_root();
	mount_late();
	mount_module_disk();
	raise_limits();
	network_up();
}
