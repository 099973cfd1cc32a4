/* Starting commands. */
#ifndef EXEC_H
#define EXEC_H

#include "request.h"
#include "stream.h"

/* `payload` is the OPEN itself: kept when the command is still to come as data. `detached` starts it without a view. */
void exec_open(struct stream *stream, const uint8_t *payload, uint32_t length, bool detached);
/* Data, their end and a signal for a command that is still to come. */
void script_data(struct stream *stream, const uint8_t *data, uint32_t length);
void script_end(struct stream *stream);

#endif
