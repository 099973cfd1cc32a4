#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "env.h"
#include "process.h"
#include "spawn.h"
#include "view.h"

enum { SCRIPT_MAX = 64 * 1024 * 1024 };

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
	struct process *p;
	const char *what;
	int error;

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
	p = process_new(r, s->opened_ns, &error);
	if (!p)
		return stream_finish(s, error, error == EEXIST ? "id" : "too many processes");
	sp.argv = script >= 0 ? script_shell : r->cmd ? shell : r->argv;
	if (!process_start(p, &sp, r->input, &what))
		return stream_finish(s, errno, what);
	s->process = p;
	view_begin(s, r);
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

void exec_open(struct stream *s, const uint8_t *payload, uint32_t length, bool detached)
{
	static uint8_t copy[PAYLOAD_MAX + 1];
	static struct request r;
	int error;

	s->kind = S_EXEC;
	s->opened_ns = now_ns();
	s->detached = detached;
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

static uint32_t take_script(struct stream *s, const uint8_t *data, uint32_t length)
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

void script_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	uint32_t used = s->finished ? length : take_script(s, data, length);

	if (used < length && !s->finished)
		view_data(s, data + used, length - used);
}

void script_end(struct stream *s)
{
	if (!s->finished)
		stream_finish(s, EINVAL, "command that ends too early");
}
