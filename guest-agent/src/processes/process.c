#include "processes/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "processes/drain.h"
#include "processes/process_table.h"
#include "processes/pty.h"
#include "processes/session.h"

enum { TERM_GRACE_NS = 1000000000, HANGUP_NS = 300000000, CHUNK = 32 * 1024 };

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
		process_forget(p);
		errno = error;
		return false;
	}
	p->state = P_RUNNING;
	pipe_watch(&p->outputs[0], false);
	if (p->outputs[1].fd >= 0)
		pipe_watch(&p->outputs[1], false);
	if (p->in.fd >= 0)
		pipe_watch(&p->in, true);
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

void process_expired(struct process *p)
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

/* Everybody has left at once: what keeps running keeps its output from now on. */
static void left_alone(struct process *p)
{
	p->needed[0] = p->needed[1] = NOT_NEEDED;
	p->spool = p->id[0] != 0;
	if (p->state != P_ENDED)
		return;
	if (!p->id[0])
		return process_forget(p);
	log_settle(&p->logs[0]);
	log_settle(&p->logs[1]);
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
		left_alone(p);
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

void process_leave(struct process *p)
{
	if (p->views && !--p->views)
		left_alone(p);
}
