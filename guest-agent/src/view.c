#include "view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "out.h"
#include "process.h"

enum { AT_SIZE = 9 };

void view_begin(struct stream *s, const struct request *r)
{
	struct process *p = s->process;

	p->views++;
	s->closes = true;
	s->input_ended = !r->input && !p->pty;
	if (s->detached)
		return;
	s->follow = true;
	s->views[0].wanted = s->views[1].wanted = true;
	p->needed[0] = p->needed[1] = 0;
}

void view_close(struct stream *s)
{
	struct process *p = s->process;

	s->process = NULL;
	if (!p)
		return;
	if (s->kind == S_EXEC) {
		p->needed[0] = p->needed[1] = NOT_NEEDED;
		p->spool = p->id[0] != 0;
	}
	process_leave(p);
}

static void attach(struct stream *s, const struct request *r)
{
	const uint64_t from[2] = { r->offset, r->err_offset };

	s->follow = r->flags & FLAG_FOLLOW;
	for (int i = 0; i < 2; i++) {
		struct view *view = &s->views[i];

		view->wanted = view->tell = r->flags & (i ? FLAG_STDERR : FLAG_STDOUT);
		view->stop = s->process->logs[i].end;
		view->at = from[i] < view->stop ? from[i] : view->stop;
	}
}

bool process_operation(struct stream *s, const struct request *r)
{
	bool all = !strcmp(r->op, "processes"), viewed = !strcmp(r->op, "attach"), typed = !strcmp(r->op, "input");
	struct process *p;

	if (!all && !viewed && !typed && strcmp(r->op, "signal"))
		return false;
	s->kind = all ? S_RECORDS : S_VIEW;
	processes_retire();
	p = r->id ? process_find(r->id) : NULL;
	if ((!all || r->id) && !p)
		return stream_finish(s, ESRCH, "id"), true;
	s->only = p;
	if (all)
		return true;
	p->views++;
	s->process = p;
	s->closes = r->flags & FLAG_CLOSE;
	if (viewed)
		attach(s, r);
	else if (!typed)
		stream_finish(s, process_signal(p, (int)(r->signal & 127)) ? 0 : ECHILD, "the process has ended");
	return true;
}

void view_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	if (s->finished || s->input_ended || s->process->in.fd < 0) {
		stream_consumed(s, length); /* nobody reads it, as with a closed pipe */
		s->cancelled = true;
		return;
	}
	if (!s->input)
		s->input = malloc(WINDOW);
	if (!s->input || length > WINDOW - s->input_length) {
		if (s->kind == S_EXEC)
			process_cancel(s->process);
		stream_finish(s, s->input ? EOVERFLOW : ENOMEM, "standard input");
		return;
	}
	for (uint32_t done = 0; done < length;) {
		uint32_t at = (s->input_start + s->input_length) % WINDOW;
		uint32_t part = length - done < WINDOW - at ? length - done : WINDOW - at;

		memcpy(s->input + at, data + done, part);
		s->input_length += part;
		done += part;
	}
}

void view_end_input(struct stream *s)
{
	s->input_ended = true;
}

static bool is_input_only(const struct stream *s)
{
	return s->kind == S_VIEW && !s->follow && !s->views[0].wanted && !s->views[1].wanted;
}

static void input_is_over(struct stream *s)
{
	/* A terminal's input ends with a character. */
	if (s->closes && !s->process->pty)
		pipe_close(&s->process->in);
}

static bool pump_input(struct stream *s)
{
	struct pipe_end *in = &s->process->in;
	bool moved = false;

	while (s->input_length && in->ready && in->fd >= 0) {
		uint32_t part = s->input_length < WINDOW - s->input_start ? s->input_length : WINDOW - s->input_start;
		ssize_t n = write(in->fd, s->input + s->input_start, part);

		if (n < 0 && errno == EAGAIN) {
			in->ready = false;
			return moved;
		}
		if (n < 0) { /* the reader is gone: the rest has no taker */
			pipe_close(in);
			break;
		}
		s->input_start = (s->input_start + (uint32_t)n) % WINDOW;
		s->input_length -= (uint32_t)n;
		s->bytes += (uint64_t)n;
		stream_consumed(s, (uint32_t)n);
		moved = true;
	}
	if (s->input_length && in->fd < 0) {
		stream_consumed(s, s->input_length);
		s->input_length = 0;
		s->cancelled = true;
		moved = true;
	}
	return moved;
}

/* Says at which offset the next bytes of an output are; false when there is no room yet. */
static bool tell(struct stream *s, int which)
{
	uint8_t *payload = s->credit < AT_SIZE ? NULL : out_payload(AT_SIZE);

	if (!payload)
		return false;
	s->credit -= AT_SIZE;
	payload[0] = (uint8_t)(which + 1);
	for (int i = 0; i < 8; i++)
		payload[1 + i] = (uint8_t)(s->views[which].at >> (8 * i));
	out_commit(F_AT, s->id, AT_SIZE);
	s->views[which].tell = false;
	return true;
}

static bool pump_output(struct stream *s, int which)
{
	struct view *view = &s->views[which];
	struct log *log = &s->process->logs[which];
	uint8_t *payload;
	size_t chunk;

	if (!view->wanted)
		return false;
	if (view->at < log->base) {
		view->at = log->base;
		view->tell = true;
	}
	if ((!view->tell && view->at == log->end) || !out_open_for_data() || (view->tell && !tell(s, which)))
		return false;
	chunk = s->credit < DATA_CHUNK ? s->credit : DATA_CHUNK;
	if (!s->follow && chunk > view->stop - view->at)
		chunk = view->at < view->stop ? (size_t)(view->stop - view->at) : 0;
	payload = chunk ? out_payload(chunk) : NULL;
	chunk = payload ? log_read(log, view->at, payload, chunk) : 0;
	if (!chunk)
		return false;
	view->at += chunk;
	s->credit -= (uint32_t)chunk;
	out_commit(which ? F_DATA_ERR : F_DATA, s->id, chunk);
	if (s->kind == S_EXEC)
		s->process->needed[which] = view->at;
	return true;
}

/* Whether nothing of an output is still to come. */
static bool complete(const struct stream *s, int which)
{
	const struct view *view = &s->views[which];

	if (!view->wanted)
		return true;
	return !view->tell && view->at >= (s->follow ? s->process->logs[which].end : view->stop);
}

static bool is_over(const struct stream *s)
{
	if (s->detached)
		return true;
	if (is_input_only(s))
		return s->input_ended ? !s->input_length : s->process->in.fd < 0;
	return complete(s, 0) && complete(s, 1) && (!s->follow || s->process->state == P_ENDED);
}

bool view_pump(struct stream *s)
{
	bool moved;

	if (!s->process || s->finished)
		return false;
	moved = pump_input(s);
	if (s->input_ended && !s->input_length)
		input_is_over(s);
	moved |= pump_output(s, 0);
	moved |= pump_output(s, 1);
	if (is_over(s))
		stream_finish(s, is_input_only(s) && s->cancelled ? EPIPE : 0, "standard input");
	return moved;
}

static void leave(struct stream *s)
{
	stream_finish(s, ECANCELED, "the view was left");
}

void view_signal(struct stream *s, int signal)
{
	if (s->kind == S_SCRIPT) {
		if (signal == SIGNAL_CANCEL || signal == SIGNAL_LEAVE)
			stream_finish(s, ECANCELED, "exec");
	} else if (s->finished) {
		return;
	} else if (signal == SIGNAL_LEAVE || (signal == SIGNAL_CANCEL && s->kind == S_VIEW)) {
		leave(s);
	} else if (signal == SIGNAL_CANCEL) {
		process_cancel(s->process);
		s->views[0].wanted = s->views[1].wanted = false;
		s->process->needed[0] = s->process->needed[1] = NOT_NEEDED;
	} else {
		process_signal(s->process, signal);
	}
}
