#include "streams/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int dial(int family, const void *address, socklen_t size, int *fd)
{
	int error;

	*fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0)
		return errno;
	if (!connect(*fd, address, size) || errno == EINPROGRESS)
		return 0;
	error = errno;
	close(*fd);
	*fd = -1;
	return error;
}

int dial_path(const char *path, int *fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	*fd = -1;
	if (strlen(path) >= sizeof address.sun_path)
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	return dial(AF_UNIX, &address, sizeof address, fd);
}

int dial_port(uint64_t port, int *fd)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	*fd = -1;
	if (port < 1 || port > 65535)
		return EINVAL;
	address.sin_port = htons((uint16_t)port);
	return dial(AF_INET, &address, sizeof address, fd);
}
