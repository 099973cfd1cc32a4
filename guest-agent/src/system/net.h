/* The loopback device and the network device, if the machine has one. */
#ifndef NET_H
#define NET_H

void network_up(void);

#endif
