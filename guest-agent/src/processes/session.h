/* Killing a session: its processes may have left the group, as the jobs of an interactive shell do. */
#ifndef SESSION_H
#define SESSION_H

#include "processes/process.h"

/* Its group at once, the rest of its session with the next sweep: one look at all processes for many. */
void session_kill(struct process *leader);
void sessions_sweep(void);

#endif
