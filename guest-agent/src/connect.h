/* A stream that is a connection to something that listens in the guest: bytes both ways, each end by itself. */
#ifndef CONNECT_H
#define CONNECT_H

#include "request.h"
#include "stream.h"

/* To the Unix socket at the request's path, or to its TCP port on the loopback. */
void connect_open(struct stream *stream, const struct request *request);
void connect_data(struct stream *stream, const uint8_t *data, uint32_t length);
void connect_end_input(struct stream *stream);
bool connect_pump(struct stream *stream);
/* Closes both directions at once. */
void connect_close(struct stream *stream);

#endif
