#include "processes/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "processes/account.h"
#include "processes/env.h"
#include "processes/process_table.h"
#include "processes/records.h"
#include "processes/view.h"
#include "proto.h"

enum { SCRIPT_MAX = 64 * 1024 * 1024 };

/* A command that is longer than a frame, or than one argument may be: it comes as the first data. */
struct script {
	uint8_t *request; /* the OPEN, kept until the command is complete; NULL: there is no script, or it runs */
	uint32_t request_length;
	int file;
	uint64_t left;
};

struct command {
	struct view view;
	struct script script;
	uint64_t opened_ns;
};

static const char *working_directory(const struct request *r, const struct account *account)
{
	if (r->cwd)
		return r->cwd;
	const char *home = account ? account->home : "/root";

	return access(home, X_OK) ? "/" : home;
}

static void begin_view(struct stream *s, struct process *p, const struct request *r)
{
	struct view *v = s->state;

	view_begin(v, p, r);
	if (s->ops == &start_ops)
		stream_finish(s, 0, NULL);
	else
		view_follow(v);
}

static void start(struct stream *s, const struct request *r, int script)
{
	static char *shell[] = { "/bin/sh", "-c", NULL, NULL };
	static char *script_shell[] = { "/bin/sh", "/proc/self/fd/3", NULL };
	static struct account account;
	struct command *command = s->state;
	bool other = r->user && strcmp(r->user, "root") != 0;
	struct spawn sp = { .script = script, .group_count = -1, .beside = s->ops == &rehearse_ops };
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
	p = process_new(r, command->opened_ns, &error);
	if (!p)
		return stream_finish(s, error, error == EEXIST ? "id" : "too many processes");
	sp.argv = script >= 0 ? script_shell : r->cmd ? shell : r->argv;
	if (!process_start(p, &sp, r->input, &what))
		return stream_finish(s, errno, what);
	begin_view(s, p, r);
}

static void await_script(struct stream *s, struct script *script, const struct request *r)
{
	static const char prefix[] = "exec 3<&-;"; /* the shell keeps a descriptor of its own */

	if (r->script_bytes > SCRIPT_MAX)
		return stream_finish(s, E2BIG, "command");
	script->left = r->script_bytes;
	script->file = memfd_create("command", MFD_CLOEXEC);
	script->request = malloc(r->raw_length + 1u);
	script->request_length = r->raw_length;
	if (!script->request || script->file < 0 || write(script->file, prefix, sizeof prefix - 1) < 0)
		return stream_finish(s, ENOMEM, "command");
	memcpy(script->request, r->raw, r->raw_length);
}

static void command_open(struct stream *s, const struct request *r)
{
	struct command *command = s->state;

	command->opened_ns = now_ns();
	command->script.file = -1;
	if (r->script_bytes)
		await_script(s, &command->script, r);
	else if (!r->cmd && !r->argc)
		stream_finish(s, EINVAL, "no command");
	else
		start(s, r, -1);
}

static void forget_script(struct script *script)
{
	if (script->file >= 0)
		close(script->file);
	free(script->request);
	script->file = -1;
	script->request = NULL;
}

static void start_script(struct stream *s, struct script *script)
{
	static struct request r;
	int error = request_parse(&r, script->request, script->request_length);

	if (error)
		stream_finish(s, error, "request");
	else
		start(s, &r, script->file);
	forget_script(script);
}

/* Returns how many of the bytes belong to the command. */
static uint32_t take_script(struct stream *s, struct script *script, const uint8_t *data, uint32_t length)
{
	uint32_t part = length < script->left ? length : (uint32_t)script->left;
	ssize_t n = write(script->file, data, part);

	if (n < 0 || (uint32_t)n < part) {
		stream_finish(s, n < 0 ? errno : ENOSPC, "command");
		return length;
	}
	script->left -= part;
	stream_consumed(s, part);
	if (!script->left)
		start_script(s, script);
	return part;
}

static void command_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	struct command *command = s->state;
	uint32_t used = command->script.request ? take_script(s, &command->script, data, length) : 0;

	if (used < length && !s->finished)
		view_data(s, data + used, length - used);
}

static void command_end(struct stream *s)
{
	struct command *command = s->state;

	if (command->script.request)
		stream_finish(s, EINVAL, "command that ends too early");
	else
		view_end(s);
}

static void command_signal(struct stream *s, int signal)
{
	struct command *command = s->state;

	if (command->view.process)
		view_signal(s, signal);
	else if (signal == SIGNAL_CANCEL || signal == SIGNAL_LEAVE)
		stream_finish(s, ECANCELED, "exec");
}

static void command_resize(struct stream *s, uint32_t rows, uint32_t cols)
{
	struct command *command = s->state;

	if (command->view.process)
		view_resize(s, rows, cols);
}

static bool command_pump(struct stream *s)
{
	struct command *command = s->state;

	return command->view.process && view_pump(s);
}

static void command_close(struct stream *s)
{
	struct command *command = s->state;

	forget_script(&command->script);
	view_close(s);
}

static void start_result(struct stream *s, struct tlv_writer *w)
{
	struct command *command = s->state;

	put_record_item(w, command->view.process);
}

const struct stream_ops exec_ops = {
	.name = OP_EXEC,
	.state_size = sizeof(struct command),
	.open = command_open,
	.data = command_data,
	.end = command_end,
	.signal = command_signal,
	.resize = command_resize,
	.pump = command_pump,
	.result = view_result,
	.close = command_close,
};

const struct stream_ops rehearse_ops = {
	.name = OP_REHEARSE,
	.state_size = sizeof(struct command),
	.open = command_open,
	.data = command_data,
	.end = command_end,
	.signal = command_signal,
	.resize = command_resize,
	.pump = command_pump,
	.result = view_result,
	.close = command_close,
};

const struct stream_ops start_ops = {
	.name = OP_START,
	.state_size = sizeof(struct command),
	.open = command_open,
	.data = command_data,
	.end = command_end,
	.signal = command_signal,
	.result = start_result,
	.close = command_close,
};
