#include "streams/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "channel/out.h"
#include "proto.h"

static struct stream streams[STREAMS];
static size_t used; /* there are none from this one on */
static size_t first; /* the stream that has the first turn: what is sent is bounded for all of them together */

struct stream *stream_find(uint32_t id)
{
	for (size_t i = 0; i < used; i++)
		if (streams[i].ops && streams[i].id == id)
			return &streams[i];
	return NULL;
}

static struct stream *free_place(void)
{
	for (size_t i = 0; i < used; i++)
		if (!streams[i].ops)
			return &streams[i];
	return used < STREAMS ? &streams[used++] : NULL;
}

static void send_error(uint32_t id, int error, const char *what)
{
	struct tlv_writer w = out_tlv(RESULT_ROOM);
	char text[256];

	strncpy(text, what, 128);
	text[128] = 0;
	strcat(text, ": ");
	strncat(text, strerror(error), 100);
	tlv_put_u32(&w, RESULT_ERRNO, (uint32_t)error);
	tlv_put_text(&w, RESULT_MESSAGE, text);
	out_commit_tlv(F_RESULT, id, &w);
}

static struct stream *begin(uint32_t id, const struct stream_ops *ops)
{
	struct stream *s = free_place();

	if (!s)
		return NULL;
	memset(s, 0, sizeof *s);
	s->id = id;
	s->credit = WINDOW;
	s->ops = ops;
	return s;
}

void stream_open(uint32_t id, const struct stream_ops *ops, const struct request *request)
{
	struct stream *s = begin(id, ops);

	if (!s)
		return send_error(id, EAGAIN, "too many operations at once");
	s->state = calloc(1, ops->state_size ? ops->state_size : 1);
	if (s->state)
		ops->open(s, request);
	else
		stream_finish(s, ENOMEM, "stream");
}

void stream_refuse(uint32_t id, int error, const char *what)
{
	static const struct stream_ops nothing = { 0 };
	struct stream *s = begin(id, &nothing);

	if (s)
		stream_finish(s, error, what);
	else
		send_error(id, error, what);
}

static void forget(struct stream *s)
{
	if (s->state && s->ops->close)
		s->ops->close(s);
	free(s->state);
	s->state = NULL;
	s->ops = NULL;
	while (used && !streams[used - 1].ops)
		used--;
}

void streams_forget(void)
{
	while (used)
		forget(&streams[used - 1]);
}

void stream_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	if (!s->finished && s->ops->data)
		s->ops->data(s, data, length);
}

void stream_end(struct stream *s)
{
	if (!s->finished && s->ops->end)
		s->ops->end(s);
}

void stream_signal(struct stream *s, int signal)
{
	if (s->finished)
		return;
	if (s->ops->signal)
		s->ops->signal(s, signal);
	else if (signal == SIGNAL_CANCEL)
		stream_finish(s, ECANCELED, "cancelled");
}

void stream_resize(struct stream *s, uint32_t rows, uint32_t cols)
{
	if (!s->finished && s->ops->resize)
		s->ops->resize(s, rows, cols);
}

void stream_credit(struct stream *s, uint32_t bytes)
{
	s->credit = bytes > UINT32_MAX - s->credit ? UINT32_MAX : s->credit + bytes;
	if (!s->finished && s->ops->credit)
		s->ops->credit(s, bytes);
}

void stream_finish(struct stream *s, int error, const char *what)
{
	s->finished = true;
	s->error = error;
	s->what = what;
}

void stream_consumed(struct stream *s, uint32_t bytes)
{
	s->owed += bytes;
	if (s->owed >= CREDIT_BATCH)
		stream_acknowledge(s);
}

void stream_acknowledge(struct stream *s)
{
	if (s->owed)
		out_credit(s->id, s->owed);
	s->owed = 0;
}

uint8_t *stream_room(struct stream *s, size_t size, size_t *room)
{
	*room = size < s->credit ? size : s->credit;
	return *room && out_open_for_data() ? out_payload(*room) : NULL;
}

void stream_send(struct stream *s, uint8_t type, size_t length)
{
	s->credit -= (uint32_t)length;
	out_commit(type, s->id, length);
}

/* Sends the RESULT of a finished stream and frees it; false when there is no room yet. */
static bool send_result(struct stream *s)
{
	struct tlv_writer w = out_tlv(RESULT_ROOM);

	if (w.overflow)
		return false;
	if (s->error) {
		send_error(s->id, s->error, s->what);
	} else {
		if (s->ops->result)
			s->ops->result(s, &w);
		else
			tlv_put_u64(&w, RESULT_BYTES, s->bytes);
		out_commit_tlv(F_RESULT, s->id, &w);
	}
	forget(s);
	return true;
}

bool streams_pump(void)
{
	bool moved = false;

	first = used ? (first + 1) % used : 0;
	for (size_t turn = 0, count = used; turn < count; turn++) {
		struct stream *s = &streams[(first + turn) % count];

		if (!s->ops)
			continue;
		if (!s->finished && s->ops->pump)
			moved |= s->ops->pump(s);
		if (s->finished)
			moved |= send_result(s);
	}
	return moved;
}

bool streams_reaped(pid_t pid, int status)
{
	for (size_t i = 0; i < used; i++)
		if (streams[i].ops && streams[i].child == pid) {
			streams[i].child = 0;
			streams[i].ops->reaped(&streams[i], status);
			return true;
		}
	return false;
}
