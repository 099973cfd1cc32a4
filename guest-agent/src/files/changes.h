/* What differs from the template: see changes.c. */
#ifndef CHANGES_H
#define CHANGES_H

#include "streams/stream.h"

/* The two directories that the root's overlay is made of; false when one of them cannot be opened. */
bool changes_between(const char *upper, const char *lower);

extern const struct stream_ops changes_ops;

#endif
