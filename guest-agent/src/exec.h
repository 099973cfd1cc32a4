/* Commands: own session, own pipes, a deadline; and the pipes of commands that nobody reads any more. */
#ifndef EXEC_H
#define EXEC_H

#include "request.h"
#include "stream.h"

/* `payload` is the OPEN itself: kept when the command is still to come as data. */
void exec_open(struct stream *stream, const uint8_t *payload, uint32_t length);
void exec_data(struct stream *stream, const uint8_t *data, uint32_t length);
void exec_end_input(struct stream *stream);
/* Signal 0 cancels: the group is killed and its output dropped. */
void exec_signal(struct stream *stream, int signal);
/* Moves what can be moved; true when something was. */
bool exec_pump(struct stream *stream);
/* The process has ended, and was reaped. */
void exec_exited(struct stream *stream, int status, const struct rusage *usage);
void exec_deadline(struct stream *stream);

/* The pipes of an exec. */
void io_close(struct pipe_end *end);
void io_input(struct stream *stream, const uint8_t *data, uint32_t length);
void io_limit(struct pipe_end *end);

/* Closes the input and leaves the outputs, which background processes may still hold, to be drained. */
void pipes_detach(struct stream *stream);
void drain(uint32_t index);

#endif
