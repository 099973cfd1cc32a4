#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel/dispatch.h"
#include "channel/out.h"
#include "channel/parser.h"
#include "processes/process_table.h"
#include "processes/session.h"
#include "streams/listen.h"
#include "streams/stream.h"
#include "streams/tunnel_table.h"
#include "watch.h"

enum { INPUT_SIZE = 64 * 1024, READ_ROUNDS = 16, PUMP_TURNS = 8 };

struct agent_options options;

static int signals = -1, port = -1;
static bool port_readable, host_gone;
static uint8_t input[INPUT_SIZE];
static size_t input_at, input_end;
static struct parser parser;

/* As PID 1 we get everybody's orphans; most children reaped here are nobody's. */
static void reap(struct watch *watch, uint32_t events)
{
	struct signalfd_siginfo info[4];
	struct rusage usage;
	int status;
	pid_t pid;

	(void)watch, (void)events;
	while (read(signals, info, sizeof info) > 0)
		;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
		if (!processes_reaped(pid, status, &usage))
			streams_reaped(pid, status);
}

static void port_ready(struct watch *watch, uint32_t events)
{
	(void)watch, (void)events;
	port_readable = true;
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

/* What has deadlines. */
static const struct {
	uint64_t (*deadline)(void);
	void (*expire)(uint64_t now);
} clocks[] = {
	{ processes_deadline, processes_expire },
	{ tunnels_deadline, tunnels_expire },
	{ listeners_deadline, listeners_expire },
};

enum { CLOCKS = sizeof clocks / sizeof *clocks };

/* Milliseconds until the next deadline, -1 without one: an idle agent has no timer. */
static int next_deadline(void)
{
	uint64_t next = NO_DEADLINE, now;

	for (size_t i = 0; i < CLOCKS; i++) {
		uint64_t deadline = clocks[i].deadline();

		next = deadline < next ? deadline : next;
	}
	if (next == NO_DEADLINE)
		return -1;
	now = now_ns();
	if (next <= now)
		return 0;
	next = (next - now) / 1000000u + 1;
	return next > 3600000 ? 3600000 : (int)next;
}

/*
 * A few turns before the next look at events. Room that a flush made counts as progress: what waited for
 * room, input too, has to be looked at again, and no edge will say so.
 */
static bool pump_some(void)
{
	bool busy = false;

	for (int turn = 0; turn < PUMP_TURNS; turn++) {
		bool moved = processes_pump();
		size_t waiting;

		moved |= streams_pump();
		waiting = out_pending();
		out_flush(port);
		if (!moved && out_pending() == waiting)
			break;
		busy = true;
	}
	return busy;
}

static void prepare(int fd)
{
	static struct watch children_ended = { reap }, channel_ready = { port_ready };
	sigset_t children;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	signal(SIGPIPE, SIG_IGN);
	port = fd;
	watch_prepare();
	signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	watch_begin(&children_ended, signals, false);
	watch_begin(&channel_ready, port, true);
	parser_reset(&parser);
}

void serve(int fd)
{
	bool busy = true;

	prepare(fd);
	dispatch_hello();
	while (!host_gone) {
		int wait = busy ? 0 : next_deadline();

		watch_wait(wait);
		for (size_t i = 0; i < CLOCKS && wait >= 0; i++)
			clocks[i].expire(now_ns());
		busy = take_input();
		busy |= pump_some();
		sessions_sweep();
	}
}
