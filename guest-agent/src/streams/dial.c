#include "streams/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

socklen_t address_of_port(union address *address, uint16_t port, bool v6)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(port) };

	if (v6)
		memcpy(address, &in6, sizeof in6);
	else
		memcpy(address, &in, sizeof in);
	return v6 ? sizeof in6 : sizeof in;
}

socklen_t address_of_path(union address *address, const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof un.sun_path)
		return 0;
	strcpy(un.sun_path, path);
	memcpy(address, &un, sizeof un);
	return sizeof un;
}

static int dial(const union address *address, socklen_t size, int *fd)
{
	int error;

	*fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return errno;
	if (!connect(*fd, &address->any, size) || errno == EINPROGRESS)
		return 0;
	error = errno;
	close(*fd);
	*fd = -1;
	return error;
}

int dial_port(uint16_t port, bool v6, int *fd)
{
	union address address;
	socklen_t size = address_of_port(&address, port, v6);

	return dial(&address, size, fd);
}

int dial_path(const char *path, int *fd)
{
	union address address;
	socklen_t size = address_of_path(&address, path);

	*fd = -1;
	return size ? dial(&address, size, fd) : ENAMETOOLONG;
}

int dial_outcome(int fd)
{
	socklen_t size = sizeof(int);
	int error;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
}
