/* Writing files. */
#ifndef WRITE_H
#define WRITE_H

#include "streams/stream.h"

extern const struct stream_ops write_ops;

#endif
