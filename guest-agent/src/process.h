/*
 * Processes that the host started, and what is kept of them: a record each, with output that can be read again. A process
 * lives on its own; streams are only views of it. Those without an id are forgotten when nobody looks at them any more.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "log.h"
#include "proto.h"
#include "request.h"
#include "spawn.h"

enum {
	PROCESSES = 256,
	RUNNING_MAX = 128,
	ID_MAX = 36,
	COMMAND_MAX = 1024, /* bytes of a command that its record has */
	/* What is kept of ended processes; the oldest are forgotten first. */
	RECORDS_MAX = 64,
	RECORDS_AGE_S = 24 * 3600,
};

#define RECORDS_BYTES ((uint64_t)256 * 1024 * 1024)
#define NOT_NEEDED UINT64_MAX

enum process_state { P_FREE, P_RUNNING, P_ENDING, P_ENDED };

struct pipe_end {
	int fd; /* -1 when closed */
	bool ready; /* edge triggered: false after EAGAIN */
	int64_t left; /* bytes still to come once the process has ended, -1 before */
};

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
	bool sweep; /* its session is to be killed */
	uint16_t rows, cols;
	uint64_t timeout_ms;
	uint64_t began_ns, duration_ns, ended_ns; /* monotonic */
	uint64_t started_ns; /* wall clock */
	uint64_t deadline_ns; /* 0: none */
	int status;
	struct rusage usage;
};

/* process_table.c */
extern struct process processes[PROCESSES];
extern uint64_t processes_forgotten;

extern size_t processes_used; /* there are none from this one on */

/* A process for a request that came at `began_ns`, not started yet; NULL with an errno when there is no room or the id is taken. */
struct process *process_new(const struct request *request, uint64_t began_ns, int *error);
/* By id, or by pid written as a number; NULL when there is none. */
struct process *process_find(const char *id);
struct process *process_of(pid_t pid);
/* Its record is gone, and its slot is free. */
void process_forget(struct process *process);
/* Forgets old records. */
void processes_retire(void);

/* process.c */
/* Starts it. False with what and errno set: then it is gone again. */
bool process_start(struct process *process, struct spawn *spawn, bool input, const char **what);
void process_exited(struct process *process, int status, const struct rusage *usage);
void process_deadline(struct process *process);
/* To its group; false when it has ended. */
bool process_signal(struct process *process, int signal);
/* Kills it with all of its session. */
void process_cancel(struct process *process);
void process_resize(struct process *process, uint32_t rows, uint32_t cols);
/* Moves output into the logs; true when something moved. */
bool process_pump(struct process *process);
/* One view less; the last one takes a record without an id with it. */
void process_leave(struct process *process);
/* Everybody has left at once: what goes on keeps its output from now on. */
void process_left_alone(struct process *process);

void pipe_close(struct pipe_end *end);
/* Outputs that background processes still hold are drained. */
void pipe_drain(struct pipe_end *end);

/* pty.c: the terminal's two ends for a child; ours is in `in` and in the first output. */
bool pty_open(struct process *process, int *child);
void pty_resize(const struct process *process);

/* session.c: its group at once, the rest of its session with the next sweep: one look at all processes for many. */
void session_kill(struct process *leader);
void sessions_sweep(void);

/* Who this machine is, from every RESUME. */
void processes_owner(const uint8_t *machine_id);
bool process_inherited(const struct process *process);

#endif
