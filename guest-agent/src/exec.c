#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "env.h"
#include "loop.h"
#include "spawn.h"

enum { SCRIPT_MAX = 64 * 1024 * 1024, TERM_GRACE_NS = 1000000000 };

static uint32_t index_of(const struct stream *s)
{
	return (uint32_t)(s - streams);
}

/* A pipe whose end `ours` (0 reads, 1 writes) does not block; the other end is for the child. */
static bool make_pipe(int ends[2], int ours)
{
	return !pipe2(ends, O_CLOEXEC) && !fcntl(ends[ours], F_SETFL, O_NONBLOCK);
}

static void close_all(int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* fds: in (read, write), out (read, write), err (read, write); the child's are closed on return. */
static pid_t spawn_with_pipes(struct stream *s, struct spawn *sp, bool input)
{
	int fds[6] = { -1, -1, -1, -1, -1, -1 };
	pid_t pid = -1;

	if (input ? make_pipe(fds, 1) : (fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		if (make_pipe(fds + 2, 0) && make_pipe(fds + 4, 0)) {
			sp->in = fds[0];
			sp->out = fds[3];
			sp->err = fds[5];
			pid = spawn(sp);
			errno = sp->error;
		} else {
			sp->what = "pipe";
		}
	else
		sp->what = "standard input";
	if (pid < 0) {
		int error = errno;

		close_all(fds, 6);
		errno = error;
		return -1;
	}
	close_all((int[]){ fds[0], fds[3], fds[5] }, 3);
	s->in.fd = fds[1];
	s->out.fd = fds[2];
	s->err.fd = fds[4];
	return pid;
}

static const char *working_directory(const struct request *r, const struct account *account)
{
	if (r->cwd)
		return r->cwd;
	const char *home = account ? account->home : "/root";

	return access(home, X_OK) ? "/" : home;
}

static void start(struct stream *s, struct request *r, int script)
{
	static char *shell[] = { "/bin/sh", "-c", NULL, NULL };
	static char *script_shell[] = { "/bin/sh", "/proc/self/fd/3", NULL };
	static struct account account;
	bool other = r->user && strcmp(r->user, "root") != 0;
	struct spawn sp = { .script = script, .group_count = -1 };
	pid_t pid;

	if (other && !account_find(r->user, &account))
		return stream_finish(s, EINVAL, "no such user in the guest");
	if (other) {
		sp.uid = account.uid;
		sp.gid = account.gid;
		sp.groups = account.groups;
		sp.group_count = account.group_count;
	}
	sp.env = env_build(r, other ? &account : NULL);
	if (!sp.env)
		return stream_finish(s, E2BIG, "environment");
	sp.search = env_get(sp.env, "PATH");
	sp.cwd = working_directory(r, other ? &account : NULL);
	shell[2] = (char *)r->cmd;
	sp.argv = script >= 0 ? script_shell : r->cmd ? shell : r->argv;
	pid = spawn_with_pipes(s, &sp, r->input);
	if (pid < 0)
		return stream_finish(s, errno, sp.what);
	s->pid = pid;
	s->input_ended = s->input_ended || !r->input;
	s->deadline_ns = r->timeout_ms ? s->opened_ns + r->timeout_ms * 1000000u : 0;
	watch(s->out.fd, W_OUT, index_of(s), false);
	watch(s->err.fd, W_ERR, index_of(s), false);
	if (s->in.fd >= 0)
		watch(s->in.fd, W_IN, index_of(s), true);
}

/* The command is longer than a frame, or than one argument may be: it comes as the first data. */
static void await_script(struct stream *s, const uint8_t *payload, uint32_t length, uint64_t size)
{
	static const char prefix[] = "exec 3<&-;"; /* the shell keeps a descriptor of its own */

	s->kind = S_SCRIPT;
	s->script_left = size;
	s->request = malloc(length + 1u);
	s->request_length = length;
	s->file = memfd_create("command", MFD_CLOEXEC);
	if (size > SCRIPT_MAX)
		return stream_finish(s, E2BIG, "command");
	if (!s->request || s->file < 0 || write(s->file, prefix, sizeof prefix - 1) < 0)
		return stream_finish(s, ENOMEM, "command");
	memcpy(s->request, payload, length);
}

void exec_open(struct stream *s, const uint8_t *payload, uint32_t length)
{
	static uint8_t copy[PAYLOAD_MAX + 1];
	static struct request r;
	int error;

	s->kind = S_EXEC;
	s->opened_ns = now_ns();
	memcpy(copy, payload, length);
	error = request_parse(&r, copy, length);
	if (error)
		stream_finish(s, error, "request");
	else if (r.script_bytes)
		await_script(s, payload, length, r.script_bytes);
	else if (!r.cmd && !r.argc)
		stream_finish(s, EINVAL, "no command");
	else
		start(s, &r, -1);
}

static void start_script(struct stream *s)
{
	static struct request r;
	int error = request_parse(&r, s->request, s->request_length);

	s->kind = S_EXEC;
	if (error)
		stream_finish(s, error, "request");
	else
		start(s, &r, s->file);
	close(s->file);
	s->file = -1;
	free(s->request);
	s->request = NULL;
}

static uint32_t script_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	uint32_t part = length < s->script_left ? length : (uint32_t)s->script_left;
	ssize_t n = write(s->file, data, part);

	if (n < 0 || (uint32_t)n < part) {
		stream_finish(s, n < 0 ? errno : ENOSPC, "command");
		return length;
	}
	s->script_left -= part;
	stream_consumed(s, part);
	if (!s->script_left)
		start_script(s);
	return part;
}

void exec_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	if (s->kind == S_SCRIPT && !s->finished) {
		uint32_t used = script_data(s, data, length);

		data += used;
		length -= used;
	}
	if (!length || s->finished)
		return;
	io_input(s, data, length);
}

void exec_end_input(struct stream *s)
{
	if (s->kind == S_SCRIPT && !s->finished)
		stream_finish(s, EINVAL, "command that ends too early");
	s->input_ended = true;
	if (!s->input_length)
		io_close(&s->in);
}

void exec_signal(struct stream *s, int signal)
{
	if (s->kind == S_SCRIPT) {
		if (signal == 0)
			stream_finish(s, ECANCELED, "exec");
		return;
	}
	if (s->pid > 0 && !s->exited)
		kill(-s->pid, signal ? signal : SIGKILL);
	if (signal == 0) {
		s->cancelled = true;
		pipes_detach(s);
	}
}

void exec_exited(struct stream *s, int status, const struct rusage *usage)
{
	s->exited = true;
	s->status = status;
	s->usage = *usage;
	s->duration_ns = now_ns() - s->opened_ns;
	s->deadline_ns = 0;
	if (s->timed_out || s->cancelled)
		kill(-s->pid, SIGKILL);
	io_limit(&s->out);
	io_limit(&s->err);
	exec_end_input(s);
}

void exec_deadline(struct stream *s)
{
	if (!s->timed_out) {
		kill(-s->pid, SIGTERM);
		s->timed_out = true;
		s->deadline_ns += TERM_GRACE_NS;
	} else {
		kill(-s->pid, SIGKILL);
		s->deadline_ns = 0;
	}
}
