/* The virtio port that the channel runs over. */
#ifndef PORT_H
#define PORT_H

/* The port with this name, non-blocking; waits for the kernel to announce it. */
int open_port(const char *name);

#endif
