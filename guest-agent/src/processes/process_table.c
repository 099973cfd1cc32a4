#include "processes/process_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "proto.h"

struct process processes[PROCESSES];
uint64_t processes_forgotten;
size_t processes_used;

static char owner[33];

void processes_owner(const uint8_t *machine_id)
{
	memcpy(owner, machine_id, 32);
}

bool process_inherited(const struct process *p)
{
	return strcmp(p->machine, owner) != 0;
}

void process_forget(struct process *p)
{
	log_free(&p->logs[0]);
	log_free(&p->logs[1]);
	free(p->command);
	p->command = NULL;
	p->state = P_FREE;
	while (processes_used && processes[processes_used - 1].state == P_FREE)
		processes_used--;
}

static struct process *oldest_ended(void)
{
	struct process *oldest = NULL;

	for (size_t i = 0; i < processes_used; i++) {
		struct process *p = &processes[i];

		if (p->state == P_ENDED && !p->views && (!oldest || p->ended_ns < oldest->ended_ns))
			oldest = p;
	}
	return oldest;
}

void processes_retire(void)
{
	uint64_t count = 0, bytes = 0, now = now_ns();
	struct process *oldest;

	for (size_t i = 0; i < processes_used; i++)
		if (processes[i].state == P_ENDED) {
			count++;
			bytes += log_kept(&processes[i].logs[0]) + log_kept(&processes[i].logs[1]);
		}
	while ((oldest = oldest_ended()) &&
	       (count > RECORDS_MAX || bytes > RECORDS_BYTES || now - oldest->ended_ns > RECORDS_AGE_S * 1000000000ull)) {
		count--;
		bytes -= log_kept(&oldest->logs[0]) + log_kept(&oldest->logs[1]);
		processes_forgotten++;
		process_forget(oldest);
	}
}

static bool id_is_fine(const char *id)
{
	size_t length = strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz-");

	return length > 0 && length <= ID_MAX && !id[length];
}

struct process *process_find(const char *id)
{
	bool number = *id && strlen(id) < 11 && !id[strspn(id, "0123456789")];
	struct process *found = NULL;

	for (size_t i = 0; i < processes_used; i++) {
		struct process *p = &processes[i];

		if (p->state == P_FREE || !p->id[0])
			continue;
		if (!strcmp(p->id, id))
			return p;
		/* pids come back: the one that runs, else the latest */
		if (number && p->pid == atoi(id) && (!found || p->began_ns > found->began_ns))
			found = p;
	}
	return found;
}

bool processes_reaped(pid_t pid, int status, const struct rusage *usage)
{
	for (size_t i = 0; i < processes_used; i++)
		if (processes[i].state == P_RUNNING && processes[i].pid == pid) {
			process_exited(&processes[i], status, usage);
			return true;
		}
	return false;
}

bool processes_pump(void)
{
	bool moved = false;

	for (size_t i = 0; i < processes_used; i++)
		moved |= process_pump(&processes[i]);
	return moved;
}

static bool has_deadline(const struct process *p)
{
	return (p->state == P_RUNNING || p->state == P_ENDING) && p->deadline_ns;
}

uint64_t processes_deadline(void)
{
	uint64_t next = NO_DEADLINE;

	for (size_t i = 0; i < processes_used; i++)
		if (has_deadline(&processes[i]) && processes[i].deadline_ns < next)
			next = processes[i].deadline_ns;
	return next;
}

void processes_expire(uint64_t now)
{
	for (size_t i = 0; i < processes_used; i++)
		if (has_deadline(&processes[i]) && processes[i].deadline_ns <= now)
			process_expired(&processes[i]);
}

static struct process *free_slot(int *error)
{
	struct process *slot = processes_used < PROCESSES ? &processes[processes_used] : NULL;
	size_t running = 0;

	for (size_t i = processes_used; i-- > 0;) {
		running += processes[i].state == P_RUNNING;
		if (processes[i].state == P_FREE)
			slot = &processes[i];
	}
	*error = EAGAIN;
	return running < RUNNING_MAX ? slot : NULL;
}

static uint64_t wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct process *process_new(const struct request *r, uint64_t began_ns, int *error)
{
	struct process *p;

	*error = EINVAL;
	if (r->id && !id_is_fine(r->id))
		return NULL;
	*error = EEXIST;
	if (r->id && process_find(r->id))
		return NULL;
	p = free_slot(error);
	if (!p)
		return NULL;
	if (processes_used <= (size_t)(p - processes))
		processes_used = (size_t)(p - processes) + 1;
	memset(p, 0, sizeof *p);
	log_begin(&p->logs[0]);
	log_begin(&p->logs[1]);
	p->needed[0] = p->needed[1] = NOT_NEEDED;
	p->in.fd = p->outputs[0].fd = p->outputs[1].fd = -1;
	p->outputs[0].left = p->outputs[1].left = -1;
	if (r->id) {
		strcpy(p->id, r->id);
		p->command = strndup(r->cmd ? r->cmd : r->argc ? r->argv[0] : "", COMMAND_MAX);
		strncpy(p->user, r->user ? r->user : "root", sizeof p->user - 1);
	}
	strcpy(p->machine, owner);
	p->keep = r->keep;
	p->spool = r->flags & FLAG_SPOOL;
	p->background = r->flags & FLAG_BACKGROUND;
	p->pty = r->rows && r->cols;
	p->rows = (uint16_t)r->rows;
	p->cols = (uint16_t)r->cols;
	p->timeout_ms = r->timeout_ms;
	p->began_ns = began_ns;
	p->started_ns = wall_ns();
	p->deadline_ns = r->timeout_ms ? p->began_ns + r->timeout_ms * 1000000u : 0;
	return p;
}
