#include "watch.h"

#include <stddef.h>
#include <sys/epoll.h>

enum { EVENTS = 32 };

static int poller = -1;

bool watch_prepare(void)
{
	poller = epoll_create1(EPOLL_CLOEXEC);
	return poller >= 0;
}

static bool control(int operation, struct watch *watch, int fd, bool output)
{
	struct epoll_event event = {
		.events = EPOLLET | EPOLLIN | (output ? (uint32_t)EPOLLOUT : 0),
		.data.ptr = watch,
	};

	return !epoll_ctl(poller, operation, fd, &event);
}

bool watch_begin(struct watch *watch, int fd, bool output)
{
	return control(EPOLL_CTL_ADD, watch, fd, output);
}

bool watch_move(struct watch *watch, int fd)
{
	return control(EPOLL_CTL_MOD, watch, fd, false);
}

void watch_end(int fd)
{
	epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

void watch_wait(int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(poller, events, EVENTS, timeout_ms);

	for (int i = 0; i < n; i++) {
		struct watch *watch = events[i].data.ptr;

		if (watch->ready)
			watch->ready(watch, events[i].events);
	}
}
