/* Connections to what listens in the guest. They do not block: whether one was made is known when it is writable. */
#ifndef DIAL_H
#define DIAL_H

#include <stdint.h>

/* To a Unix socket, or to a TCP port of the loopback; 0 and the descriptor, or an errno and -1. */
int dial_path(const char *path, int *fd);
int dial_port(uint64_t port, int *fd);

#endif
