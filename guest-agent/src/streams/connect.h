/* A connection to something that listens in the guest: bytes both ways, each end by itself. */
#ifndef CONNECT_H
#define CONNECT_H

#include "streams/stream.h"

/* To the Unix socket at the request's path, or to its TCP port on the loopback. */
extern const struct stream_ops connect_ops;

#endif
