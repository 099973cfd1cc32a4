#include "system/net.h"

#include <arpa/inet.h>
#include <fcntl.h>
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

/* The same addresses everywhere: a restored guest finds itself where it was captured. */
static void ethernet(int fd)
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

static void set_parameter(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, text, strlen(text));
	close(fd);
}

/* While the cable is out, a connection is refused at once instead of after minutes. */
static void sandbox_network(int fd)
{
	set_parameter("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
	set_parameter("/proc/sys/net/ipv4/conf/eth0/ignore_routes_with_linkdown", "1");
	ethernet(fd);
}

void network_up(void)
{
	const char *nic = command_line("pandastack.nic");
	struct ifreq loopback = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	set_up(fd, &loopback);
	if (!strcmp(nic, "user"))
		ethernet(fd);
	else if (!strcmp(nic, "tap"))
		sandbox_network(fd);
	close(fd);
}
