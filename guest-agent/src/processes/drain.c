/*
 * Closing the outputs of background processes whose command has ended would kill the writers with SIGPIPE; leaving them would
 * block the writers.
 */
#include "processes/drain.h"

#include <errno.h>
#include <unistd.h>

enum { DRAINS = 256, DRAIN_ROUNDS = 16, SCRAP = 32 * 1024 };

struct drain {
	struct watch watch;
	int fd; /* 0: none */
};

static struct drain drains[DRAINS];
static uint32_t used, oldest;

static void drain(struct watch *watch, uint32_t events)
{
	static char scrap[SCRAP];
	struct drain *d = (struct drain *)watch;
	ssize_t n = 1;

	(void)events;
	if (d->fd <= 0)
		return;
	for (int round = 0; round < DRAIN_ROUNDS && n > 0; round++)
		n = read(d->fd, scrap, sizeof scrap);
	if (n > 0) /* a fast writer: come back in the next turn of the loop */
		watch_move(watch, d->fd);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close(d->fd);
	d->fd = 0;
}

static struct drain *free_place(void)
{
	for (uint32_t i = 0; i < used; i++)
		if (drains[i].fd <= 0)
			return &drains[i];
	if (used < DRAINS)
		return &drains[used++];
	oldest = (oldest + 1) % DRAINS;
	close(drains[oldest].fd);
	return &drains[oldest];
}

void pipe_drain(struct pipe_end *end)
{
	if (end->fd >= 0) {
		struct drain *d = free_place();

		d->watch.ready = drain;
		d->fd = end->fd;
		if (!watch_move(&d->watch, d->fd)) {
			close(d->fd);
			d->fd = 0;
		}
	}
	end->fd = -1;
	end->ready = false;
}
