/* Our end of a pipe or terminal of a process. */
#ifndef PIPE_END_H
#define PIPE_END_H

#include <stdint.h>

#include "watch.h"

struct pipe_end {
	struct watch watch;
	int fd; /* -1 when closed */
	bool ready; /* edge triggered: false after EAGAIN */
	int64_t left; /* bytes still to come once the process has ended, -1 before */
};

/* Watches it; `writes`: it is an input of the process. */
void pipe_watch(struct pipe_end *end, bool writes);
void pipe_close(struct pipe_end *end);

#endif
