#include "channel/dispatch.h"

#include <errno.h>
#include <string.h>

#include "channel/out.h"
#include "channel/request.h"
#include "files/base.h"
#include "files/changes.h"
#include "files/delete.h"
#include "files/directory.h"
#include "files/entry.h"
#include "files/read.h"
#include "files/sync.h"
#include "files/write.h"
#include "system/freeze.h"
#include "system/identity.h"
#include "system/volume.h"
#include "processes/exec.h"
#include "processes/records.h"
#include "processes/view.h"
#include "streams/listen.h"
#include "streams/stream.h"
#include "streams/tunnel.h"

static const struct stream_ops *const operations[] = {
	&exec_ops, &start_ops, &rehearse_ops, &attach_ops, &input_ops, &signal_ops, &processes_ops,
	&read_ops, &write_ops, &stat_ops, &list_ops, &mkdir_ops, &delete_ops, &sync_ops, &changes_ops, &remember_ops,
	&tunnel_ops, &listen_ops, &volume_ops,
};

void dispatch_hello(void)
{
	struct tlv_writer w = out_tlv(64);

	tlv_put_u32(&w, HELLO_VERSION, PROTO_VERSION);
	out_commit_tlv(F_HELLO, 0, &w);
}

static const struct stream_ops *find_operation(const char *name)
{
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (!strcmp(operations[i]->name, name))
			return operations[i];
	return NULL;
}

static void open_stream(const struct parser *frame)
{
	static struct request r;
	static uint8_t copy[PAYLOAD_MAX + 1];
	const struct stream_ops *ops;
	int error;

	if (!frame->stream || stream_find(frame->stream))
		return; /* the host never does this */
	memcpy(copy, frame->payload, frame->length);
	error = request_parse(&r, copy, frame->length);
	if (error || !r.op)
		return stream_refuse(frame->stream, error ? error : EINVAL, "request");
	ops = find_operation(r.op);
	if (!ops)
		return stream_refuse(frame->stream, EOPNOTSUPP, "operation");
	r.raw = frame->payload;
	r.raw_length = frame->length;
	stream_open(frame->stream, ops, &r);
}

static void resume(const struct parser *frame)
{
	streams_forget();
	out_reset();
	identity_resume(frame->payload, frame->length);
}

/* A payload that is not empty asks for programs to be frozen as well, until a THAW or a RESUME. */
static void quiesce(const struct parser *frame)
{
	if (frame->length)
		freeze();
	out_empty(F_QUIET, 0);
}

static uint32_t get_u16(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8;
}

static void to_stream(struct stream *s, const struct parser *frame)
{
	const uint8_t *payload = frame->payload;

	switch (frame->type) {
	case F_DATA: stream_data(s, payload, frame->length); break;
	case F_EOF: stream_end(s); break;
	case F_CREDIT: if (frame->length == 4) stream_credit(s, get_u32(payload)); break;
	case F_SIGNAL: if (frame->length == 1) stream_signal(s, payload[0]); break;
	case F_RESIZE: if (frame->length == 4) stream_resize(s, get_u16(payload), get_u16(payload + 2)); break;
	}
}

void dispatch(const struct parser *frame)
{
	struct stream *s;

	switch (frame->type) {
	case F_RESUME: resume(frame); return;
	case F_QUIESCE: quiesce(frame); return;
	case F_THAW: identity_continue(frame->payload, frame->length); return;
	case F_PING: out_empty(F_PONG, 0); return;
	case F_OPEN: open_stream(frame); return;
	}
	s = stream_find(frame->stream);
	if (s) /* else it ended while this was on its way */
		to_stream(s, frame);
}
