/* Connections to other machines. */
#ifndef CONNECTIONS_H
#define CONNECTIONS_H

/*
 * Aborts every TCP connection whose other end is not in this machine: it belongs to the machine that this is a copy of,
 * or to a time that is over. Programs find it reset.
 */
void connections_abort(void);

#endif
