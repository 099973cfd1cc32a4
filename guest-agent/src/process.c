#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "stream.h"

enum { TERM_GRACE_NS = 1000000000, HANGUP_NS = 300000000, CHUNK = 32 * 1024 };

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

static size_t index_of(const struct process *p)
{
	return (size_t)(p - processes);
}

static void forget(struct process *p)
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
		forget(oldest);
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

struct process *process_of(pid_t pid)
{
	for (size_t i = 0; i < processes_used; i++)
		if (processes[i].state == P_RUNNING && processes[i].pid == pid)
			return &processes[i];
	return NULL;
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

/* A pipe whose end `ours` (0 reads, 1 writes) does not block; the other end is for the child. */
static int make_pipe(struct pipe_end *end, int ours)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	if (fcntl(ends[ours], F_SETFL, O_NONBLOCK)) {
		close(ends[0]);
		close(ends[1]);
		return -1;
	}
	end->fd = ends[ours];
	return ends[!ours];
}

static bool open_pipes(struct process *p, struct spawn *sp, bool input)
{
	int child = -1;

	if (p->pty) {
		if (!pty_open(p, &child))
			return false;
		sp->in = sp->out = sp->err = child;
		sp->terminal = true;
		return true;
	}
	sp->in = input ? make_pipe(&p->in, 1) : open("/dev/null", O_RDONLY | O_CLOEXEC);
	sp->out = make_pipe(&p->outputs[0], 0);
	sp->err = make_pipe(&p->outputs[1], 0);
	return sp->in >= 0 && sp->out >= 0 && sp->err >= 0;
}

static void close_childs(const struct spawn *sp)
{
	const int fds[] = { sp->in, sp->out, sp->err };

	for (size_t i = 0; i < (sp->terminal ? 1 : 3); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

bool process_start(struct process *p, struct spawn *sp, bool input, const char **what)
{
	int error;

	sp->in = sp->out = sp->err = -1;
	*what = "pipe";
	if (open_pipes(p, sp, input)) {
		p->pid = spawn(sp);
		*what = sp->what;
		errno = sp->error;
	} else {
		p->pid = -1;
	}
	error = errno;
	close_childs(sp);
	if (p->pid < 0) {
		for (int i = 0; i < 2; i++)
			pipe_close(&p->outputs[i]);
		pipe_close(&p->in);
		forget(p);
		errno = error;
		return false;
	}
	p->state = P_RUNNING;
	if (processes_used <= index_of(p))
		processes_used = index_of(p) + 1;
	watch(p->outputs[0].fd, W_OUT, (uint32_t)index_of(p), false);
	if (p->outputs[1].fd >= 0)
		watch(p->outputs[1].fd, W_ERR, (uint32_t)index_of(p), false);
	if (p->in.fd >= 0)
		watch(p->in.fd, W_IN, (uint32_t)index_of(p), true);
	return true;
}

bool process_signal(struct process *p, int signal)
{
	return p->state == P_RUNNING && !kill(-p->pid, signal);
}

void process_cancel(struct process *p)
{
	if (p->state != P_RUNNING)
		return;
	p->cancelled = true;
	session_kill(p);
}

void process_deadline(struct process *p)
{
	if (p->state == P_ENDING) { /* a terminal that somebody still holds */
		pipe_close(&p->outputs[0]);
		p->deadline_ns = 0;
	} else if (!p->timed_out) {
		kill(-p->pid, SIGTERM);
		p->timed_out = true;
		p->deadline_ns += TERM_GRACE_NS;
	} else {
		session_kill(p);
		p->deadline_ns = 0;
	}
}

void process_resize(struct process *p, uint32_t rows, uint32_t cols)
{
	if (!p->pty || p->state != P_RUNNING || !rows || !cols || rows > UINT16_MAX || cols > UINT16_MAX)
		return;
	p->rows = (uint16_t)rows;
	p->cols = (uint16_t)cols;
	pty_resize(p);
}

/* What the command wrote is what the pipe holds now; what background processes add later is not its output. */
static void limit(struct pipe_end *end)
{
	int held = 0;

	if (end->fd < 0)
		return;
	ioctl(end->fd, FIONREAD, &held);
	end->left = held;
	end->ready = true;
}

void process_exited(struct process *p, int status, const struct rusage *usage)
{
	p->state = P_ENDING;
	p->status = status;
	p->usage = *usage;
	p->duration_ns = now_ns() - p->began_ns;
	p->deadline_ns = 0;
	if (p->timed_out || p->cancelled)
		session_kill(p);
	pipe_close(&p->in);
	if (p->pty) {
		p->outputs[0].ready = true; /* the kernel hangs it up: its end will be read */
		p->deadline_ns = now_ns() + HANGUP_NS;
	} else {
		limit(&p->outputs[0]);
		limit(&p->outputs[1]);
	}
}

/* Moves one piece from an output into its log. */
static bool take(struct process *p, int which)
{
	struct pipe_end *end = &p->outputs[which];
	uint8_t *at;
	size_t room;
	ssize_t n;

	end->ready = end->ready && end->fd >= 0;
	if (!end->ready || !end->left)
		return false;
	room = log_room(&p->logs[which], &at, p->needed[which], p->spool, p->keep);
	if (!room)
		return false;
	room = room < CHUNK ? room : CHUNK;
	if (end->left > 0 && room > (uint64_t)end->left)
		room = (size_t)end->left;
	n = read(end->fd, at, room);
	if (n > 0) {
		log_added(&p->logs[which], (size_t)n);
		if (end->left > 0)
			end->left -= n;
		return true;
	}
	end->ready = false;
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		pipe_close(end);
	if (end->left > 0)
		end->left = 0;
	return end->fd < 0;
}

static bool drained(const struct pipe_end *end)
{
	return end->fd < 0 || end->left == 0;
}

static void end(struct process *p)
{
	p->state = P_ENDED;
	p->deadline_ns = 0;
	p->ended_ns = now_ns();
	for (int i = 0; i < 2; i++) {
		if (p->pty)
			pipe_close(&p->outputs[i]);
		else
			pipe_drain(&p->outputs[i]);
	}
	if (!p->views)
		process_left_alone(p);
	processes_retire();
}

bool process_pump(struct process *p)
{
	bool moved = false;

	if (p->state == P_RUNNING || p->state == P_ENDING) {
		moved = take(p, 0);
		moved |= take(p, 1);
		if (p->state == P_ENDING && drained(&p->outputs[0]) && drained(&p->outputs[1])) {
			end(p);
			moved = true;
		}
	}
	return moved;
}

void process_left_alone(struct process *p)
{
	p->needed[0] = p->needed[1] = NOT_NEEDED;
	p->spool = p->id[0] != 0;
	if (p->state != P_ENDED)
		return;
	if (!p->id[0])
		return forget(p);
	log_settle(&p->logs[0]);
	log_settle(&p->logs[1]);
}

void process_leave(struct process *p)
{
	if (p->views && !--p->views)
		process_left_alone(p);
}
