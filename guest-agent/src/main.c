/*
 * The guest's init and agent. As PID 1 it makes a running system out of the kernel and serves the host
 * by the virtio port named "agent". With --fd N it serves the inherited descriptor N as an ordinary
 * process, for tests; --no-identity then lets a RESUME leave the machine as it is, --root DIRECTORY DEVICE
 * says whose changes are asked for, --logs DIRECTORY has the output of processes that is too long for memory,
 * and --disks PREFIX says what the names of volumes' devices begin with.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files/base.h"
#include "loop.h"
#include "processes/log.h"
#include "system/boot.h"
#include "system/freeze.h"
#include "system/identity.h"
#include "system/panic.h"
#include "system/port.h"
#include "system/volume.h"

static void fill_standard_descriptors(void)
{
	int fd;

	while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2)
		;
	if (fd > 2)
		close(fd);
}

static int serve_descriptor(int fd)
{
	fill_standard_descriptors();
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK))
		return 1;
	if (options.identity)
		identity_prepare();
	serve(fd);
	return 0;
}

int main(int argc, char **argv)
{
	int fd = -1;

	options.identity = true;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--fd") && i + 1 < argc)
			fd = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--no-identity"))
			options.identity = false;
		else if (!strcmp(argv[i], "--root") && i + 2 < argc && !base_files(argv[i + 1], argv[i + 2]))
			return 2;
		else if (!strcmp(argv[i], "--logs") && i + 1 < argc)
			log_directory = argv[++i];
		else if (!strcmp(argv[i], "--disks") && i + 1 < argc)
			volume_devices = argv[++i];
	}
	if (fd >= 0)
		return serve_descriptor(fd);
	if (getpid() != 1)
		return 2;
	options.identity = options.is_init = true;
	boot();
	identity_prepare();
	freeze_prepare();
	serve(open_port("agent"));
	power_off("the agent ended");
}
