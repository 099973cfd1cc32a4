#include "processes/view.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "channel/out.h"
#include "processes/process_table.h"
#include "processes/records.h"
#include "proto.h"

enum { AT_SIZE = 9 };

void view_begin(struct view *v, struct process *p, const struct request *r)
{
	p->views++;
	v->process = p;
	v->first = v->closes = true;
	v->input_ended = !r->input && !p->pty;
}

void view_follow(struct view *v)
{
	v->follow = true;
	v->outputs[0].wanted = v->outputs[1].wanted = true;
	v->process->needed[0] = v->process->needed[1] = 0;
}

/* The process is no longer slowed down; what it writes from now on is kept for others. */
static void let_run(struct process *p)
{
	p->needed[0] = p->needed[1] = NOT_NEEDED;
	p->spool = p->id[0] != 0;
}

void view_close(struct stream *s)
{
	struct view *v = s->state;

	input_free(&v->input);
	if (!v->process)
		return;
	if (v->first)
		let_run(v->process);
	process_leave(v->process);
}

void view_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	struct view *v = s->state;
	int error;

	if (v->input_ended || v->process->in.fd < 0) {
		stream_consumed(s, length); /* nobody reads it, as with a closed pipe */
		v->input_lost = true;
		return;
	}
	error = input_add(&v->input, data, length);
	if (!error)
		return;
	if (v->first)
		process_cancel(v->process);
	stream_finish(s, error, "standard input");
}

void view_end(struct stream *s)
{
	((struct view *)s->state)->input_ended = true;
}

void view_resize(struct stream *s, uint32_t rows, uint32_t cols)
{
	process_resize(((struct view *)s->state)->process, rows, cols);
}

/* Writes what the process takes; what has no reader any more is dropped. */
static bool pump_input(struct stream *s, struct view *v)
{
	struct pipe_end *in = &v->process->in;
	bool moved = false;

	while (v->input.length && in->ready && in->fd >= 0) {
		const uint8_t *at;
		uint32_t piece = input_piece(&v->input, &at);
		ssize_t n = write(in->fd, at, piece);

		if (n < 0 && errno == EAGAIN) {
			in->ready = false;
			return moved;
		}
		if (n < 0) {
			pipe_close(in);
			break;
		}
		input_drop(&v->input, (uint32_t)n);
		s->bytes += (uint64_t)n;
		stream_consumed(s, (uint32_t)n);
		moved = true;
	}
	if (v->input.length && in->fd < 0) {
		stream_consumed(s, v->input.length);
		input_drop(&v->input, v->input.length);
		v->input_lost = true;
		moved = true;
	}
	/* A terminal's input ends with a character. */
	if (v->input_ended && !v->input.length && v->closes && !v->process->pty)
		pipe_close(in);
	return moved;
}

/* Says at which offset the next bytes of an output are; false when there is no room yet. */
static bool tell(struct stream *s, struct output_view *out, int which)
{
	size_t room;
	uint8_t *payload = stream_room(s, AT_SIZE, &room);

	if (!payload || room < AT_SIZE)
		return false;
	payload[0] = (uint8_t)(which + 1);
	put_u64(payload + 1, out->at);
	stream_send(s, F_AT, AT_SIZE);
	out->tell = false;
	return true;
}

static bool pump_output(struct stream *s, struct view *v, int which)
{
	struct output_view *out = &v->outputs[which];
	struct log *log = &v->process->logs[which];
	size_t chunk = DATA_CHUNK, room;
	uint8_t *payload;

	if (!out->wanted)
		return false;
	if (out->at < log->base) {
		out->at = log->base;
		out->tell = true;
	}
	if ((!out->tell && out->at == log->end) || (out->tell && !tell(s, out, which)))
		return false;
	if (!v->follow && chunk > out->stop - out->at)
		chunk = out->at < out->stop ? (size_t)(out->stop - out->at) : 0;
	payload = stream_room(s, chunk, &room);
	room = payload ? log_read(log, out->at, payload, room) : 0;
	if (!room)
		return false;
	out->at += room;
	stream_send(s, which ? F_DATA_ERR : F_DATA, room);
	if (v->first)
		v->process->needed[which] = out->at;
	return true;
}

/* Whether nothing of an output is still to come. */
static bool complete(const struct view *v, int which)
{
	const struct output_view *out = &v->outputs[which];

	if (!out->wanted)
		return true;
	return !out->tell && out->at >= (v->follow ? v->process->logs[which].end : out->stop);
}

bool view_pump(struct stream *s)
{
	struct view *v = s->state;
	bool moved = pump_input(s, v);

	moved |= pump_output(s, v, 0);
	moved |= pump_output(s, v, 1);
	if (complete(v, 0) && complete(v, 1) && (!v->follow || v->process->state == P_ENDED))
		stream_finish(s, 0, NULL);
	return moved;
}

void view_signal(struct stream *s, int signal)
{
	struct view *v = s->state;

	if (signal == SIGNAL_LEAVE || (signal == SIGNAL_CANCEL && !v->first)) {
		stream_finish(s, ECANCELED, "the view was left");
	} else if (signal == SIGNAL_CANCEL) {
		process_cancel(v->process);
		v->outputs[0].wanted = v->outputs[1].wanted = false;
		v->process->needed[0] = v->process->needed[1] = NOT_NEEDED;
	} else {
		process_signal(v->process, signal);
	}
}

void view_result(struct stream *s, struct tlv_writer *w)
{
	const struct view *v = s->state;

	tlv_put_u64(w, RESULT_BYTES, s->bytes);
	if (v->process->state == P_ENDED)
		put_exit(w, v->process);
}

/* The process that the request names, or NULL: then the stream is finished. */
static struct process *named(struct stream *s, const struct request *r)
{
	struct process *p;

	processes_retire();
	p = r->id ? process_find(r->id) : NULL;
	if (!p)
		stream_finish(s, ESRCH, "id");
	return p;
}

static void look(struct output_view *out, const struct log *log, bool wanted, uint64_t from)
{
	out->wanted = out->tell = wanted;
	out->stop = log->end;
	out->at = from < out->stop ? from : out->stop;
}

static void attach_open(struct stream *s, const struct request *r)
{
	struct view *v = s->state;
	struct process *p = named(s, r);

	if (!p)
		return;
	p->views++;
	v->process = p;
	v->closes = r->flags & FLAG_CLOSE;
	v->follow = r->flags & FLAG_FOLLOW;
	look(&v->outputs[0], &p->logs[0], r->flags & FLAG_STDOUT, r->offset);
	look(&v->outputs[1], &p->logs[1], r->flags & FLAG_STDERR, r->err_offset);
}

static bool feed_pump(struct stream *s)
{
	struct view *v = s->state;
	bool moved = pump_input(s, v);

	if (v->input_ended ? !v->input.length : v->process->in.fd < 0)
		stream_finish(s, v->input_lost ? EPIPE : 0, "standard input");
	return moved;
}

static void signal_open(struct stream *s, const struct request *r)
{
	struct process *p = named(s, r);

	if (p)
		stream_finish(s, process_signal(p, (int)(r->signal & 127)) ? 0 : ECHILD, "the process has ended");
}

const struct stream_ops attach_ops = {
	.name = OP_ATTACH,
	.state_size = sizeof(struct view),
	.open = attach_open,
	.data = view_data,
	.end = view_end,
	.signal = view_signal,
	.resize = view_resize,
	.pump = view_pump,
	.result = view_result,
	.close = view_close,
};

const struct stream_ops input_ops = {
	.name = OP_INPUT,
	.state_size = sizeof(struct view),
	.open = attach_open, /* of no output */
	.data = view_data,
	.end = view_end,
	.signal = view_signal,
	.resize = view_resize,
	.pump = feed_pump,
	.result = view_result,
	.close = view_close,
};

const struct stream_ops signal_ops = { .name = OP_SIGNAL, .open = signal_open };
