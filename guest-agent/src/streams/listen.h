/* Listening in the guest for the host: each accepted connection is a tunnel. */
#ifndef LISTEN_H
#define LISTEN_H

#include "streams/stream.h"

extern const struct stream_ops listen_ops;

/* Closes all that the host listens at. */
void listeners_close(void);
/* As for tunnels: one that nobody is attached to is closed after a while. */
uint64_t listeners_deadline(void);
void listeners_expire(uint64_t now);

#endif
