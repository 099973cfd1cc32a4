/* The processes: finding them, making room, and what is remembered of those that have ended. */
#ifndef PROCESS_TABLE_H
#define PROCESS_TABLE_H

#include "channel/request.h"
#include "processes/process.h"

enum {
	PROCESSES = 256,
	RUNNING_MAX = 128,
	/* What is kept of ended processes; the oldest are forgotten first. */
	RECORDS_MAX = 64,
	RECORDS_AGE_S = 24 * 3600,
};

#define RECORDS_BYTES ((uint64_t)256 * 1024 * 1024)

extern struct process processes[PROCESSES];
extern size_t processes_used; /* there are none from this one on */
extern uint64_t processes_forgotten;

/* A process for a request that came at `began_ns`, not started yet; NULL with an errno when there is no room or the id is taken. */
struct process *process_new(const struct request *request, uint64_t began_ns, int *error);
/* By id, or by pid written as a number; NULL when there is none. */
struct process *process_find(const char *id);
/* Its record is gone, and its slot is free. */
void process_forget(struct process *process);
/* Forgets old records. */
void processes_retire(void);

bool processes_pump(void);
/* The next of all deadlines, or NO_DEADLINE. */
uint64_t processes_deadline(void);
void processes_expire(uint64_t now);
/* Whether the child was one of them. */
bool processes_reaped(pid_t pid, int status, const struct rusage *usage);

/* Who this machine is, from every RESUME. */
void processes_owner(const uint8_t *machine_id);
bool process_inherited(const struct process *process);

#endif
