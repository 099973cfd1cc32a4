/*
 * Starting commands: `exec` looks at the command until it ends, `start` answers with its record at once. `rehearse` is an
 * exec beside programs that are frozen, and stay so.
 */
#ifndef EXEC_H
#define EXEC_H

#include "streams/stream.h"

extern const struct stream_ops exec_ops, start_ops, rehearse_ops;

#endif
