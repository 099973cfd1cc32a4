#include "system/uevents.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static int uevents = -1;

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
