/* The event loop. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>

struct agent_options {
	bool identity; /* whether a RESUME changes the machine */
	bool is_init; /* whether reading 0 means that the host is away, not that it is gone */
};

extern struct agent_options options;

/* Serves the channel; returns only when a host that cannot come back has gone. */
void serve(int port);

#endif
