#include "system/net.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "system/command_line.h"

static void set_up(int fd, struct ifreq *request)
{
	request->ifr_flags = IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, request);
}

static struct sockaddr address(const char *text)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(text) };
	struct sockaddr out;

	memcpy(&out, &in, sizeof out);
	return out;
}

static void user_network(int fd)
{
	struct ifreq request = { .ifr_name = "eth0" };
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	int mtu = atoi(command_line("pandastack.mtu"));

	request.ifr_addr = address("10.0.2.15");
	ioctl(fd, SIOCSIFADDR, &request);
	request.ifr_netmask = address("255.255.255.0");
	ioctl(fd, SIOCSIFNETMASK, &request);
	if (mtu > 0) {
		request.ifr_mtu = mtu;
		ioctl(fd, SIOCSIFMTU, &request);
	}
	set_up(fd, &request);
	route.rt_dst = address("0.0.0.0");
	route.rt_genmask = address("0.0.0.0");
	route.rt_gateway = address("10.0.2.2");
	ioctl(fd, SIOCADDRT, &route);
}

void network_up(void)
{
	struct ifreq loopback = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	set_up(fd, &loopback);
	if (!strcmp(command_line("pandastack.nic"), "user"))
		user_network(fd);
	close(fd);
}
