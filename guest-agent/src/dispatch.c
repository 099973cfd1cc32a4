#include "dispatch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "connect.h"
#include "exec.h"
#include "files.h"
#include "freeze.h"
#include "identity.h"
#include "out.h"
#include "process.h"
#include "request.h"
#include "stream.h"
#include "view.h"

void dispatch_hello(void)
{
	struct tlv_writer w = out_tlv(64);

	tlv_put_u32(&w, HELLO_VERSION, PROTO_VERSION);
	out_commit_tlv(F_HELLO, 0, &w);
}

static void open_file_operation(struct stream *s, const struct request *r)
{
	if (!strcmp(r->op, "read"))
		read_open(s, r);
	else if (!strcmp(r->op, "write"))
		write_open(s, r);
	else if (!strcmp(r->op, "stat"))
		stat_open(s, r);
	else if (!strcmp(r->op, "list"))
		list_open(s, r);
	else if (!strcmp(r->op, "delete"))
		delete_open(s, r);
	else if (!strcmp(r->op, "mkdir"))
		mkdir_open(s, r);
	else if (!strcmp(r->op, "connect"))
		connect_open(s, r);
	else if (!strcmp(r->op, "sync"))
		sync_open(s);
	else if (!strcmp(r->op, "changes"))
		changes_open(s);
	else {
		s->kind = S_JOB;
		stream_finish(s, EOPNOTSUPP, "operation");
	}
}

/* Whether the list is well formed and asks for this operation; starting a command reads it again, from a copy. */
static bool asks_for(const uint8_t *payload, uint32_t length, const char *operation)
{
	struct tlv_reader reader = { payload, payload + length };
	struct tlv_item item;

	return tlv_next(&reader, &item) == 1 && item.key == OPEN_OP && item.length == strlen(operation) &&
	       !memcmp(item.value, operation, item.length);
}

static void open_stream(const struct parser *frame)
{
	static struct request r;
	static uint8_t copy[PAYLOAD_MAX + 1];
	struct stream *s;
	int error;

	if (!frame->stream || stream_find(frame->stream))
		return; /* the host never does this: the rest of a frame that was cut */
	s = stream_new(frame->stream);
	if (!s)
		return send_error(frame->stream, EAGAIN, "too many operations at once");
	if (asks_for(frame->payload, frame->length, "exec"))
		return exec_open(s, frame->payload, frame->length, false);
	if (asks_for(frame->payload, frame->length, "start"))
		return exec_open(s, frame->payload, frame->length, true);
	memcpy(copy, frame->payload, frame->length);
	error = request_parse(&r, copy, frame->length);
	if (!error && r.op) {
		if (!process_operation(s, &r))
			open_file_operation(s, &r);
		return;
	}
	s->kind = S_JOB;
	stream_finish(s, error ? error : EINVAL, "request");
}

static bool is_view(const struct stream *s)
{
	return (s->kind == S_EXEC || s->kind == S_VIEW) && s->process;
}

static void take_data(struct stream *s, const struct parser *frame)
{
	if (s->kind == S_SCRIPT)
		script_data(s, frame->payload, frame->length);
	else if (is_view(s))
		view_data(s, frame->payload, frame->length);
	else if (s->kind == S_WRITE)
		write_data(s, frame->payload, frame->length);
	else if (s->kind == S_SOCKET)
		connect_data(s, frame->payload, frame->length);
}

static void take_end(struct stream *s)
{
	if (s->kind == S_SCRIPT)
		script_end(s);
	else if (is_view(s))
		view_end_input(s);
	else if (s->kind == S_WRITE && !s->finished)
		write_end(s);
	else if (s->kind == S_SOCKET)
		connect_end_input(s);
}

static void take_signal(struct stream *s, int signal)
{
	if (is_view(s) || s->kind == S_SCRIPT) {
		view_signal(s, signal);
	} else if (s->kind == S_JOB && s->pid > 0 && signal == 0) {
		s->cancelled = true;
		kill(s->pid, SIGKILL);
	} else if (signal == 0 && !s->finished) {
		stream_finish(s, ECANCELED, "cancelled");
	}
}

static void take_size(struct stream *s, const struct parser *frame)
{
	const uint8_t *size = frame->payload;

	if (is_view(s) && frame->length == 4)
		process_resize(s->process, size[0] | (uint32_t)size[1] << 8, size[2] | (uint32_t)size[3] << 8);
}

static void add_credit(struct stream *s, uint32_t bytes)
{
	s->credit = bytes > UINT32_MAX - s->credit ? UINT32_MAX : s->credit + bytes;
}

static void resume(const struct parser *frame)
{
	for (size_t i = 0; i < STREAMS; i++)
		if (streams[i].kind != S_FREE)
			stream_forget(&streams[i]);
	out_reset();
	identity_resume(frame->payload, frame->length);
}

/* A payload that is not empty asks for programs to stand still as well, until a THAW or a RESUME. */
static void quiesce(const struct parser *frame)
{
	if (frame->length)
		freeze();
	out_empty(F_QUIET, 0);
}

void dispatch(const struct parser *frame)
{
	struct stream *s;

	switch (frame->type) {
	case F_RESUME: resume(frame); return;
	case F_QUIESCE: quiesce(frame); return;
	case F_THAW: identity_go_on(frame->payload, frame->length); return;
	case F_PING: out_empty(F_PONG, 0); return;
	case F_OPEN: open_stream(frame); return;
	}
	s = stream_find(frame->stream);
	if (!s)
		return; /* it ended while this was on its way */
	switch (frame->type) {
	case F_DATA: take_data(s, frame); break;
	case F_EOF: take_end(s); break;
	case F_CREDIT: if (frame->length == 4) add_credit(s, get_u32(frame->payload)); break;
	case F_SIGNAL: if (frame->length == 1) take_signal(s, frame->payload[0]); break;
	case F_RESIZE: take_size(s, frame); break;
	}
}
