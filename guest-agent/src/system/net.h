/* The loopback device, and the address that user-mode networking expects. */
#ifndef NET_H
#define NET_H

void network_up(void);

#endif
