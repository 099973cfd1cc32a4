/* A process's terminal. */
#ifndef PTY_H
#define PTY_H

#include "processes/process.h"

/* The terminal's two ends: the child's is in *child, ours in `in` and in the first output. */
bool pty_open(struct process *process, int *child);
/* Tells the terminal the process's rows and columns. */
void pty_resize(const struct process *process);

#endif
