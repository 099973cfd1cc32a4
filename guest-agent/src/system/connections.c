/*
 * Sources: sock_diag(7), and Linux, include/uapi/linux/inet_diag.h. The first form of the request is used because it asks
 * for both families at once: the kernel walks its table once, which takes milliseconds under emulation.
 */
#include "system/connections.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LISTED_SIZE = 16384 };

/* Every state in which there is another end. */
static const uint32_t connected = (1u << TCP_ESTABLISHED) | (1u << TCP_SYN_SENT) | (1u << TCP_SYN_RECV) |
                                  (1u << TCP_FIN_WAIT1) | (1u << TCP_FIN_WAIT2) | (1u << TCP_CLOSE_WAIT) |
                                  (1u << TCP_LAST_ACK) | (1u << TCP_CLOSING);

static int open_diagnosis(void)
{
	struct timeval patience = { 2, 0 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	return fd;
}

static bool ask(int fd)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req request;
	} message = {
		.header = { sizeof message, TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		.request = { .idiag_family = AF_INET, .idiag_states = connected },
	};

	return send(fd, &message, sizeof message, 0) == (ssize_t)sizeof message;
}

static bool loopback(const uint8_t *address, bool v6)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	static const uint8_t own[16] = { [15] = 1 };

	if (!v6)
		return address[0] == 127;
	if (!memcmp(address, mapped, sizeof mapped))
		return address[12] == 127;
	return !memcmp(address, own, sizeof own);
}

/* Its own addresses are reached over the loopback device, too. */
static bool stays_inside(const struct inet_diag_msg *found)
{
	bool v6 = found->idiag_family == AF_INET6;
	const uint8_t *from = (const uint8_t *)found->id.idiag_src, *to = (const uint8_t *)found->id.idiag_dst;

	return loopback(to, v6) || !memcmp(from, to, v6 ? 16 : 4);
}

static void abort_one(int fd, const struct inet_diag_msg *found)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} message = {
		.header = { sizeof message, SOCK_DESTROY, NLM_F_REQUEST, 2, 0 },
		.request = {
			.sdiag_family = found->idiag_family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = ~0u,
			.id = found->id,
		},
	};

	(void)!send(fd, &message, sizeof message, 0); /* one that is gone by now needs nothing */
}

/* False after the last part of the list. */
static bool abort_listed(int listing, int aborting)
{
	static uint8_t listed[LISTED_SIZE] __attribute__((aligned(8)));
	ssize_t size = recv(listing, listed, sizeof listed, 0);
	struct nlmsghdr *header = (struct nlmsghdr *)(void *)listed;
	int left = (int)size;

	if (size <= 0)
		return false;
	for (; NLMSG_OK(header, (unsigned int)left); header = NLMSG_NEXT(header, left)) {
		const struct inet_diag_msg *found = NLMSG_DATA(header);

		if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
			return false;
		if (header->nlmsg_len >= NLMSG_LENGTH(sizeof *found) && !stays_inside(found))
			abort_one(aborting, found);
	}
	return true;
}

void connections_abort(void)
{
	int listing = open_diagnosis(), aborting = open_diagnosis();

	if (listing >= 0 && aborting >= 0 && ask(listing))
		while (abort_listed(listing, aborting))
			;
	if (listing >= 0)
		close(listing);
	if (aborting >= 0)
		close(aborting);
}
