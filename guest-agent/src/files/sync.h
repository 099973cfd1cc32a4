/* Writing the page cache to the disks. */
#ifndef SYNC_H
#define SYNC_H

#include "streams/stream.h"

extern const struct stream_ops sync_ops;

#endif
