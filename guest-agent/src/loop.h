/* The event loop's side that others need: watching descriptors, edge triggered. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stdint.h>

enum watch_kind { W_PORT, W_SIGNALS, W_OUT, W_ERR, W_IN, W_DRAIN, W_SOCKET_OUT, W_SOCKET_IN };

struct agent_options {
	bool identity; /* whether a RESUME changes the machine */
	bool is_init; /* whether reading 0 means that the host is away, not that it is gone */
};

extern struct agent_options options;

bool watch(int fd, enum watch_kind kind, uint32_t index, bool output);
bool watch_again(int fd, enum watch_kind kind, uint32_t index);
/* drain.c: there is something in an output that nobody reads. */
void drain(uint32_t index);
/* Serves the channel; returns only when a host that cannot come back has gone. */
void serve(int port);

#endif
