/* What differs from the template: see changes.c. */
#ifndef CHANGES_H
#define CHANGES_H

#include "streams/stream.h"

extern const struct stream_ops changes_ops;

#endif
