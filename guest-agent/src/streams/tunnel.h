/* The streams that are attached to tunnels. */
#ifndef TUNNEL_H
#define TUNNEL_H

#include "streams/stream.h"

extern const struct stream_ops tunnel_ops;

#endif
