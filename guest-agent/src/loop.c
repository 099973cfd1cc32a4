#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "connect.h"
#include "dispatch.h"
#include "files.h"
#include "out.h"
#include "parser.h"
#include "process.h"
#include "stream.h"
#include "view.h"

enum { EVENTS = 32, INPUT_SIZE = 64 * 1024, READ_ROUNDS = 16, PUMP_TURNS = 8 };

struct agent_options options;

static int poller = -1, signals = -1, port = -1;
static bool port_readable, host_gone;
static uint8_t input[INPUT_SIZE];
static size_t input_at, input_end;
static struct parser parser;

static bool control(int operation, int fd, enum watch_kind kind, uint32_t index, bool output)
{
	struct epoll_event event = {
		.events = EPOLLET | EPOLLIN | (output ? (uint32_t)EPOLLOUT : 0),
		.data.u64 = (uint64_t)kind << 32 | index,
	};

	return !epoll_ctl(poller, operation, fd, &event);
}

bool watch(int fd, enum watch_kind kind, uint32_t index, bool output)
{
	return control(EPOLL_CTL_ADD, fd, kind, index, output);
}

bool watch_again(int fd, enum watch_kind kind, uint32_t index)
{
	return control(EPOLL_CTL_MOD, fd, kind, index, false);
}

static struct stream *job_of(pid_t pid)
{
	for (size_t i = 0; i < STREAMS; i++)
		if (streams[i].kind == S_JOB && streams[i].pid == pid)
			return &streams[i];
	return NULL;
}

/* As PID 1 we get everybody's orphans; most children reaped here are of no stream. */
static void reap(void)
{
	struct signalfd_siginfo info[4];
	struct rusage usage;
	int status;
	pid_t pid;

	while (read(signals, info, sizeof info) > 0)
		;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		struct process *p = process_of(pid);
		struct stream *s = p ? NULL : job_of(pid);

		if (p)
			process_exited(p, status, &usage);
		else if (s)
			job_exited(s, status);
	}
}

static void on_event(uint64_t data)
{
	uint32_t index = (uint32_t)data;

	switch ((enum watch_kind)(data >> 32)) {
	case W_PORT: port_readable = true; break;
	case W_SIGNALS: reap(); break;
	case W_OUT: processes[index].outputs[0].ready = true; break;
	case W_ERR: processes[index].outputs[1].ready = true; break;
	case W_IN: processes[index].in.ready = true; break;
	case W_DRAIN: drain(index); break;
	case W_SOCKET_OUT: streams[index].socket[0].ready = true; break;
	case W_SOCKET_IN: streams[index].socket[1].ready = true; break;
	}
}

static bool pump_stream(struct stream *s)
{
	switch (s->kind) {
	case S_FREE: case S_SCRIPT: return false;
	case S_EXEC: case S_VIEW: return view_pump(s);
	case S_RECORDS: return records_pump(s);
	case S_SOCKET: return connect_pump(s);
	default: return files_pump(s);
	}
}

static bool pump(void)
{
	bool moved = false;

	for (size_t i = 0; i < processes_used; i++)
		if (processes[i].state == P_RUNNING || processes[i].state == P_ENDING)
			moved |= process_pump(&processes[i]);
	for (size_t i = 0; i < STREAMS; i++) {
		struct stream *s = &streams[i];

		if (s->kind == S_FREE)
			continue;
		moved |= pump_stream(s);
		if (s->finished)
			moved |= stream_result(s);
	}
	return moved;
}

static bool parse(void)
{
	bool any = false;

	while (input_at < input_end && out_pending() < OUT_INPUT_LIMIT) {
		bool complete;

		input_at += parser_feed(&parser, input + input_at, input_end - input_at, &complete);
		if (complete)
			dispatch(&parser);
		any = true;
	}
	if (input_at == input_end)
		input_at = input_end = 0;
	return any;
}

/* The kernel's port gives a page at a time: rounds save the rest of the loop for a busy stream. */
static bool take_input(void)
{
	bool any = parse();

	for (int round = 0; round < READ_ROUNDS && port_readable && !input_end; round++) {
		ssize_t n = read(port, input, sizeof input);

		if (n > 0) {
			input_end = (size_t)n;
			any |= parse();
			if (n < 4096)
				break;
			continue;
		}
		port_readable = n < 0 && errno == EINTR;
		/* 0 from the kernel's port: the host is away, and an edge will tell when it is back */
		host_gone = !options.is_init && (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR));
		break;
	}
	return any;
}

static bool has_deadline(const struct process *p)
{
	return (p->state == P_RUNNING || p->state == P_ENDING) && p->deadline_ns;
}

/* Milliseconds until the next deadline, -1 without one: an idle agent has no timer. */
static int next_deadline(void)
{
	uint64_t next = UINT64_MAX, now;

	for (size_t i = 0; i < processes_used; i++)
		if (has_deadline(&processes[i]) && processes[i].deadline_ns < next)
			next = processes[i].deadline_ns;
	if (next == UINT64_MAX)
		return -1;
	now = now_ns();
	if (next <= now)
		return 0;
	next = (next - now) / 1000000u + 1;
	return next > 3600000 ? 3600000 : (int)next;
}

static void check_deadlines(void)
{
	uint64_t now = now_ns();

	for (size_t i = 0; i < processes_used; i++)
		if (has_deadline(&processes[i]) && processes[i].deadline_ns <= now)
			process_deadline(&processes[i]);
}

/*
 * A few turns before the next look at events. Room that a flush made counts as progress: what waited for
 * room, input too, has to be looked at again, and no edge will say so.
 */
static bool pump_some(void)
{
	bool busy = false;

	for (int turn = 0; turn < PUMP_TURNS; turn++) {
		bool moved = pump();
		size_t waiting = out_pending();

		out_flush(port);
		if (!moved && out_pending() == waiting)
			break;
		busy = true;
	}
	return busy;
}

static void prepare(int fd)
{
	sigset_t children;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	signal(SIGPIPE, SIG_IGN);
	port = fd;
	poller = epoll_create1(EPOLL_CLOEXEC);
	signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	watch(signals, W_SIGNALS, 0, false);
	watch(port, W_PORT, 0, true);
	parser_reset(&parser);
}

void serve(int fd)
{
	struct epoll_event events[EVENTS];
	bool busy = true;

	prepare(fd);
	dispatch_hello();
	while (!host_gone) {
		int wait = busy ? 0 : next_deadline(), n;

		n = epoll_wait(poller, events, EVENTS, wait);
		for (int i = 0; i < n; i++)
			on_event(events[i].data.u64);
		if (wait >= 0)
			check_deadlines();
		busy = take_input();
		busy |= pump_some();
		sessions_sweep();
	}
}
