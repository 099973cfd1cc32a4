/* Reading a regular file. */
#ifndef READ_H
#define READ_H

#include "streams/stream.h"

extern const struct stream_ops read_ops;

#endif
