/*
 * Programs of the agent's own that a tunnel leads to: each is a child process that runs as a user of the guest, at the other
 * end of a socket pair. See docs/design/0039-ssh.md.
 */
#ifndef SERVICE_H
#define SERVICE_H

/* Starts the service with this name as `user` (NULL: root). 0 and our end of its socket, or an errno. */
int service_start(const char *name, const char *user, int *fd);

#endif
