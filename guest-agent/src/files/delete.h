/* Deleting a file or a whole tree; what is missing is fine. */
#ifndef DELETE_H
#define DELETE_H

#include "streams/stream.h"

extern const struct stream_ops delete_ops;

#endif
