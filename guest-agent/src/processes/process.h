/*
 * A process that the host started, and what is kept of it: a record, with output that can be read again. It lives on its
 * own; streams are only views of it.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "processes/log.h"
#include "processes/pipe_end.h"
#include "processes/spawn.h"

enum {
	ID_MAX = 36,
	COMMAND_MAX = 1024, /* bytes of a command that its record has */
};

#define NOT_NEEDED UINT64_MAX

enum process_state { P_FREE, P_RUNNING, P_ENDING, P_ENDED };

struct process {
	enum process_state state;
	char id[ID_MAX + 1];
	char *command;
	char user[64];
	char machine[33]; /* whose process it was when it began: a fork's child has its parent's as well */
	pid_t pid;
	struct pipe_end in, outputs[2];
	struct log logs[2];
	uint64_t needed[2]; /* from here on a view that slows the process down needs the output */
	uint64_t keep; /* bytes of each output that are kept in a file */
	uint32_t views;
	bool spool, pty, background, timed_out, cancelled;
	bool sweep; /* its session is to be killed: see session.h */
	uint16_t rows, cols;
	uint64_t timeout_ms;
	uint64_t began_ns, duration_ns, ended_ns; /* monotonic */
	uint64_t started_ns; /* wall clock */
	uint64_t deadline_ns; /* 0: none */
	int status;
	struct rusage usage;
};

/* Starts it. False with what and errno set: then it is gone again. */
bool process_start(struct process *process, struct spawn *spawn, bool input, const char **what);
void process_exited(struct process *process, int status, const struct rusage *usage);
void process_expired(struct process *process);
/* To its group; false when it has ended. */
bool process_signal(struct process *process, int signal);
/* Kills it with all of its session. */
void process_cancel(struct process *process);
void process_resize(struct process *process, uint32_t rows, uint32_t cols);
/* Moves output into the logs; true when something moved. */
bool process_pump(struct process *process);
/* One view less; the last one takes a record without an id with it. */
void process_leave(struct process *process);

#endif
