/*
 * Outputs that nobody reads: of background processes whose command has ended. Closing them would kill the writers with SIGPIPE; leaving them would block the writers.
 */
#include <errno.h>
#include <unistd.h>

#include "loop.h"
#include "process.h"
#include "stream.h"

enum { DRAINS = 256, DRAIN_ROUNDS = 16 };

static int drains[DRAINS];
static uint32_t used, oldest;

void drain(uint32_t index)
{
	static char scrap[DATA_CHUNK];
	ssize_t n = 1;

	if (index >= used || drains[index] <= 0)
		return;
	for (int round = 0; round < DRAIN_ROUNDS && n > 0; round++)
		n = read(drains[index], scrap, sizeof scrap);
	if (n > 0) /* a fast writer: come back in the next turn of the loop */
		watch_again(drains[index], W_DRAIN, index);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close(drains[index]);
	drains[index] = 0;
}

static uint32_t free_slot(void)
{
	for (uint32_t i = 0; i < used; i++)
		if (drains[i] <= 0)
			return i;
	if (used < DRAINS)
		return used++;
	oldest = (oldest + 1) % DRAINS;
	close(drains[oldest]);
	return oldest;
}

void pipe_drain(struct pipe_end *end)
{
	if (end->fd >= 0) {
		uint32_t slot = free_slot();

		drains[slot] = end->fd;
		if (!watch_again(end->fd, W_DRAIN, slot)) {
			close(end->fd);
			drains[slot] = 0;
		}
	}
	end->fd = -1;
	end->ready = false;
}

void pipe_close(struct pipe_end *end)
{
	if (end->fd >= 0)
		close(end->fd);
	end->fd = -1;
	end->ready = false;
}
