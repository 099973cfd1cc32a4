#include "processes/pipe_end.h"

#include <unistd.h>

static void ready(struct watch *watch, uint32_t events)
{
	(void)events;
	((struct pipe_end *)watch)->ready = true;
}

void pipe_watch(struct pipe_end *end, bool writes)
{
	end->watch.ready = ready;
	watch_begin(&end->watch, end->fd, writes);
}

void pipe_close(struct pipe_end *end)
{
	if (end->fd >= 0)
		close(end->fd);
	end->fd = -1;
	end->ready = false;
}
