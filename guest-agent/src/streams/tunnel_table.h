/* The tunnels: connections inside the guest whose other end is the host's. See docs/design/0024-tunnels.md. */
#ifndef TUNNEL_TABLE_H
#define TUNNEL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "streams/input.h"
#include "streams/ring.h"
#include "watch.h"

enum { TUNNELS = 512, TUNNEL_ID_MAX = 36, DETACHED_S = 300 };

struct tunnel {
	bool used;
	char id[TUNNEL_ID_MAX + 1]; /* "": it ends with its stream */
	struct watch watch;
	int fd; /* -1: the connection is over, and what was sent may still be asked for */
	uint16_t port; /* being connected to at 127.0.0.1, and to be tried at [::1]; 0: none */
	bool connecting, readable, writable; /* the latter two edge triggered: false after EAGAIN */
	int error; /* that ended the connection */
	/* From the guest: */
	struct ring sent; /* not acknowledged by the host; its end counts all that the program sent. Unused without an id */
	bool output_ended, end_acknowledged;
	/* To the guest: */
	uint64_t consumed; /* what the program's socket took; the end counts as a byte */
	bool input_ended, input_lost; /* lost: the program closed before it took all */
	/* Of the stream that is attached: */
	struct stream *stream; /* NULL: none */
	uint64_t next, acknowledged; /* offsets of what is sent next, and of what the host may still ask for */
	bool opened, end_sent, end_received; /* what the stream has told the host, and heard from it */
	struct input input; /* on its way to the program */
	uint64_t expires_ns; /* without a stream */
	/* Accepted, and not attached to yet: */
	const void *listener;
	bool announced;
};

struct tunnel *tunnel_find(const char *id);
/* A tunnel for a connection, with an id (copied) or without; NULL with an errno. It owns the descriptor, here too. */
struct tunnel *tunnel_new(const char *id, int fd, int *error);
/* Another connection in place of one that was not made; 0 or an errno. It owns the descriptor. */
int tunnel_redial(struct tunnel *tunnel, int fd);
/* The connection is over; what is to be sent stays. */
void tunnel_disconnect(struct tunnel *tunnel);
/* Nobody is attached any more. */
void tunnel_leave(struct tunnel *tunnel);
/* Closes it; the program sees a reset unless both ways had ended. */
void tunnel_free(struct tunnel *tunnel);

/* The next of the tunnels with this listener after `tunnel` (NULL: the first), or NULL. */
struct tunnel *tunnel_accepted(const void *listener, struct tunnel *tunnel);

/* Takes the memory of rings in which nothing is. */
void tunnels_release(void);
/* Closes all of them. */
void tunnels_close(void);
/* When the next one without a stream is to be closed, or NO_DEADLINE. */
uint64_t tunnels_deadline(void);
void tunnels_expire(uint64_t now);

#endif
