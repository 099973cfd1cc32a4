/* Listing and making directories. */
#ifndef DIRECTORY_H
#define DIRECTORY_H

#include "streams/stream.h"

extern const struct stream_ops list_ops, mkdir_ops;

#endif
