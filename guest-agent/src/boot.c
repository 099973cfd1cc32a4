#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int uevents = -1;

_Noreturn void power_off(const char *why)
{
	(void)!write(2, "agent: ", 7);
	(void)!write(2, why, strlen(why));
	(void)!write(2, "\n", 1);
	sync();
	reboot(RB_AUTOBOOT); /* the VMM ends instead of rebooting */
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

void uevents_open(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };

	uevents = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	if (uevents >= 0)
		bind(uevents, (struct sockaddr *)&address, sizeof address);
}

bool uevents_wait(int timeout_ms)
{
	struct pollfd wait = { uevents, POLLIN, 0 };
	char scrap[4096];

	if (poll(&wait, 1, timeout_ms) <= 0)
		return false;
	while (recv(uevents, scrap, sizeof scrap, 0) >= 0 || errno == ENOBUFS)
		;
	return true;
}

void uevents_close(void)
{
	if (uevents >= 0)
		close(uevents);
	uevents = -1;
}

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
	load_modules();
	switch_root();
	mount_late();
	raise_limits();
	network_up();
}
