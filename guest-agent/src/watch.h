/* Waiting for descriptors, edge triggered: a callback for each. */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Part of the object that owns the descriptor. `ready` gets epoll's events and must free nothing. An object that is freed
 * ends its watch first: while a child has the descriptor too, closing it does not.
 */
struct watch {
	void (*ready)(struct watch *watch, uint32_t events);
};

bool watch_prepare(void);
/* Watches for input, and with `output` for room to write as well. False with errno set. */
bool watch_begin(struct watch *watch, int fd, bool output);
/* Has a descriptor that is watched already report to `watch` from now on, at once when there is input. */
bool watch_move(struct watch *watch, int fd);
void watch_end(int fd);
/* Waits at most `timeout_ms` (-1: for ever) and calls back. */
void watch_wait(int timeout_ms);

#endif
