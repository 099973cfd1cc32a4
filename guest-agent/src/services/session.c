#include "services/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel/request.h"
#include "channel/tlv.h"
#include "processes/env.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

enum { HEADER = 5, PIECE = 32 * 1024, PENDING_MAX = 256 * 1024 };

/* Bytes on their way, from `at` to `end`. */
struct buffer {
	uint8_t bytes[PENDING_MAX];
	size_t at, end;
};

static int socket_fd, children = -1;
static int input = -1, output = -1, error_output = -1, terminal = -1;
static pid_t command;
static bool ended, input_ended;
static int status;
static struct buffer from_host, to_command, to_host;

static size_t room(struct buffer *b)
{
	if (b->at) {
		memmove(b->bytes, b->bytes + b->at, b->end - b->at);
		b->end -= b->at;
		b->at = 0;
	}
	return sizeof b->bytes - b->end;
}

static bool is_empty(const struct buffer *b)
{
	return b->at == b->end;
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Writes what the descriptor takes now; false when nobody reads it any more. */
static bool drain(struct buffer *b, int fd)
{
	while (!is_empty(b)) {
		ssize_t n = write(fd, b->bytes + b->at, b->end - b->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		b->at += (size_t)n;
	}
	return true;
}

static void frame(uint8_t type, const void *payload, size_t length)
{
	uint8_t *to;

	if (room(&to_host) < HEADER + length)
		return;
	to = to_host.bytes + to_host.end;
	to[0] = type;
	put_u32(to + 1, (uint32_t)length);
	if (length)
		memcpy(to + HEADER, payload, length);
	to_host.end += HEADER + length;
}

static _Noreturn void leave(void)
{
	fcntl(socket_fd, F_SETFL, O_RDWR);
	drain(&to_host, socket_fd);
	_exit(0);
}

static _Noreturn void fail(const char *what)
{
	frame(SESSION_FAILED, what, strlen(what));
	leave();
}

static _Noreturn void become_command(const struct account *account, const char *cmd, char **env, const int ends[3])
{
	const char *shell = account->shell[0] && !access(account->shell, X_OK) ? account->shell : "/bin/sh";
	const char *base = strrchr(shell, '/');
	char name[sizeof account->shell + 2] = "-";
	char *argv[] = { NULL, NULL, NULL, NULL };
	sigset_t none;

	strcat(name, base ? base + 1 : shell);
	argv[0] = cmd ? name + 1 : name;
	argv[1] = cmd ? "-c" : NULL;
	argv[2] = (char *)cmd;
	setsid();
	if (terminal >= 0)
		ioctl(ends[0], TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++)
		if (dup2(ends[i], i) < 0)
			_exit(126);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(shell, argv, env);
	_exit(127);
}

static bool open_terminal(const struct request *r, int ends[3])
{
	struct winsize size = { .ws_row = (uint16_t)r->rows, .ws_col = (uint16_t)r->cols };
	int unlocked = 0, peer;

	terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (terminal < 0 || ioctl(terminal, TIOCSPTLCK, &unlocked) || ioctl(terminal, TIOCSWINSZ, &size))
		return false;
	peer = ioctl(terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	ends[0] = ends[1] = ends[2] = peer;
	input = fcntl(terminal, F_DUPFD_CLOEXEC, 4);
	output = terminal;
	return peer >= 0 && input >= 0;
}

static bool open_pipes(int ends[3])
{
	int in[2], out[2], err[2];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		return false;
	ends[0] = in[0];
	ends[1] = out[1];
	ends[2] = err[1];
	input = in[1];
	output = out[0];
	error_output = err[0];
	return !fcntl(input, F_SETFL, O_NONBLOCK) && !fcntl(output, F_SETFL, O_NONBLOCK) &&
	       !fcntl(error_output, F_SETFL, O_NONBLOCK);
}

static void start(const struct account *account, uint8_t *payload, uint32_t length)
{
	static struct request r;
	char **env;
	int ends[3];

	if (request_parse(&r, payload, length))
		fail("malformed request");
	env = env_build(&r, account);
	if (!env)
		fail("the environment is too long");
	if (!(r.rows ? open_terminal(&r, ends) : open_pipes(ends)))
		fail(r.rows ? "no terminal is free" : "no pipe is free");
	command = fork();
	if (!command)
		become_command(account, r.cmd, env, ends);
	if (command < 0)
		fail("no process is free");
	close(ends[0]);
	if (!r.rows) {
		close(ends[1]);
		close(ends[2]);
	}
}

static void send_signal(int number)
{
	pid_t group = command;

	if (terminal >= 0 && ioctl(terminal, TIOCGPGRP, &group))
		group = command;
	if (number > 0 && number < 65 && !ended)
		kill(-group, number);
}

static void resize(const uint8_t *payload)
{
	struct winsize size = { .ws_row = (uint16_t)(payload[0] | payload[1] << 8),
				.ws_col = (uint16_t)(payload[2] | payload[3] << 8) };

	if (terminal >= 0)
		ioctl(terminal, TIOCSWINSZ, &size);
}

static void take_input(const uint8_t *payload, uint32_t length)
{
	if (input < 0 || input_ended)
		return; /* nobody reads it, as with a closed pipe */
	room(&to_command);
	memcpy(to_command.bytes + to_command.end, payload, length);
	to_command.end += length;
}

static void handle(const struct account *account, uint8_t type, uint8_t *payload, uint32_t length)
{
	if (!command && type != SESSION_START)
		fail("the first frame does not start anything");
	switch (type) {
	case SESSION_START: if (command) leave(); start(account, payload, length); break;
	case SESSION_INPUT: take_input(payload, length); break;
	case SESSION_INPUT_END: input_ended = true; break;
	case SESSION_SIGNAL: if (length == 1) send_signal(payload[0]); break;
	case SESSION_RESIZE: if (length == 4) resize(payload); break;
	}
}

/* Handles the frames that are complete, as long as there is room for their input. */
static void handle_all(const struct account *account)
{
	static uint8_t copy[SESSION_FRAME_MAX + 1];

	while (from_host.end - from_host.at >= HEADER) {
		const uint8_t *at = from_host.bytes + from_host.at;
		uint32_t length = get_u32(at + 1);

		if (length > SESSION_FRAME_MAX)
			leave();
		if (from_host.end - from_host.at < HEADER + length || (*at == SESSION_INPUT && room(&to_command) < length))
			return;
		memcpy(copy, at + HEADER, length);
		from_host.at += HEADER + length;
		handle(account, *at, copy, length);
	}
}

static void hear(const struct account *account)
{
	ssize_t n = 0;

	if (room(&from_host)) {
		n = read(socket_fd, from_host.bytes + from_host.end, sizeof from_host.bytes - from_host.end);
		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			_exit(0); /* the host has closed it: our end of the terminal or of the pipes goes with us */
	}
	from_host.end += n > 0 ? (size_t)n : 0;
	handle_all(account);
}

static void feed(const struct account *account)
{
	if (input >= 0 && !drain(&to_command, input))
		close_end(&input);
	if (input < 0)
		to_command.at = to_command.end;
	if (input_ended && is_empty(&to_command) && terminal < 0)
		close_end(&input);
	handle_all(account);
}

static void forward(int *fd, uint8_t type)
{
	static uint8_t piece[PIECE];
	ssize_t n = read(*fd, piece, sizeof piece);

	if (n > 0)
		frame(type, piece, (size_t)n);
	else if (!n || (errno != EAGAIN && errno != EINTR)) /* a terminal without a program answers EIO */
		close_end(fd);
	else if (ended && terminal >= 0)
		close_end(fd); /* programs in the background may keep it open */
}

static void reap(void)
{
	struct signalfd_siginfo info;

	while (read(children, &info, sizeof info) > 0)
		;
	if (!ended && waitpid(command, &status, WNOHANG) == command)
		ended = true;
}

static void tell_end(void)
{
	uint8_t end[2] = { WIFEXITED(status) ? (uint8_t)WEXITSTATUS(status) : (uint8_t)(128 + WTERMSIG(status)),
			   WIFSIGNALED(status) ? (uint8_t)WTERMSIG(status) : 0 };

	frame(SESSION_EXIT, end, sizeof end);
	leave();
}

static bool step(const struct account *account)
{
	bool out = is_empty(&to_host); /* otherwise the host is slow, and the command waits */
	struct pollfd fds[] = {
		{ socket_fd, (short)((room(&from_host) ? POLLIN : 0) | (out ? 0 : POLLOUT)), 0 },
		{ is_empty(&to_command) ? -1 : input, POLLOUT, 0 },
		{ out ? output : -1, POLLIN, 0 },
		{ out ? error_output : -1, POLLIN, 0 },
		{ children, POLLIN, 0 },
	};
	/* The end of a terminal's session has no end of file: then what is there is read without waiting for more. */
	bool last = ended && terminal >= 0 && output >= 0 && out;

	if (poll(fds, sizeof fds / sizeof *fds, last ? 0 : -1) < 0 && errno != EINTR)
		return false;
	if (fds[4].revents)
		reap();
	if (fds[0].revents & (POLLHUP | POLLERR))
		_exit(0);
	if (fds[0].revents & POLLIN)
		hear(account);
	feed(account);
	if (output >= 0 && (fds[2].revents || last))
		forward(&output, SESSION_OUTPUT);
	if (error_output >= 0 && fds[3].revents)
		forward(&error_output, SESSION_ERROR);
	if (!drain(&to_host, socket_fd))
		return false;
	if (ended && output < 0 && error_output < 0)
		tell_end();
	return true;
}

void session_run(int fd, const struct account *account)
{
	sigset_t child_signal;

	socket_fd = fd;
	sigemptyset(&child_signal);
	sigaddset(&child_signal, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_signal, NULL);
	signal(SIGPIPE, SIG_IGN);
	children = signalfd(-1, &child_signal, SFD_CLOEXEC | SFD_NONBLOCK);
	fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	while (step(account))
		;
}
