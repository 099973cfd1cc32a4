/* Connections to what listens in the guest. They do not block: when one is writable, dial_outcome tells. */
#ifndef DIAL_H
#define DIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

union address {
	struct sockaddr any;
	struct sockaddr_storage storage;
};

/* The address of a TCP port on the loopback, or of a Unix socket; its size, or 0 when the path is too long for one. */
socklen_t address_of_port(union address *address, uint16_t port, bool v6);
socklen_t address_of_path(union address *address, const char *path);

/* 0 and the descriptor, or an errno and -1. */
int dial_port(uint16_t port, bool v6, int *fd);
int dial_path(const char *path, int *fd);
/* 0 when the connection was made, else an errno. */
int dial_outcome(int fd);

#endif
