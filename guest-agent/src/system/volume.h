/* Volumes: disks that a machine finds in places where its template has blank ones. */
#ifndef VOLUME_H
#define VOLUME_H

#include "streams/stream.h"

/* What the names of the machine's disks begin with; a test has others. */
extern const char *volume_devices;

extern const struct stream_ops volume_ops;

#endif
