#include "streams/tunnel.h"

#include <errno.h>
#include <sys/socket.h>

#include "channel/out.h"
#include "proto.h"
#include "services/service.h"
#include "streams/dial.h"
#include "streams/tunnel_table.h"

struct attachment {
	struct tunnel *tunnel; /* NULL: it could not be made */
};

static struct tunnel *of(struct stream *s)
{
	return ((struct attachment *)s->state)->tunnel;
}

static void attach(struct stream *s, struct tunnel *t)
{
	t->stream = s;
	t->listener = NULL;
	((struct attachment *)s->state)->tunnel = t;
}

static struct tunnel *dial(const struct request *r, int *error)
{
	struct tunnel *t;
	int fd = -1;

	*error = EINVAL;
	if (r->argc)
		*error = service_start(r->argv[0], r->user, &fd);
	else if (r->path)
		*error = dial_path(r->path, &fd);
	else if (r->port > 0 && r->port < 65536)
		*error = dial_port((uint16_t)r->port, false, &fd);
	if (*error)
		return NULL;
	t = tunnel_new(r->id, fd, error);
	if (t) {
		t->connecting = true;
		t->port = r->path || r->argc ? 0 : (uint16_t)r->port;
	}
	return t;
}

/* Moves the tunnel to this stream: what the host has not received is sent again. */
static int take_over(struct stream *s, struct tunnel *t, uint64_t received)
{
	bool has_end = t->output_ended && received == t->sent.end + 1;

	if (received < t->sent.base || (received > t->sent.end && !has_end))
		return ERANGE;
	if (t->stream) {
		((struct attachment *)t->stream->state)->tunnel = NULL;
		stream_finish(t->stream, ECANCELED, "attached to by another stream");
		tunnel_leave(t);
	}
	t->next = has_end ? t->sent.end : received;
	t->end_sent = t->end_acknowledged = has_end;
	t->acknowledged = t->next;
	ring_drop(&t->sent, t->next);
	attach(s, t);
	return 0;
}

static void tunnel_open(struct stream *s, const struct request *r)
{
	struct tunnel *t;
	int error;

	if (r->has_received) {
		t = r->id ? tunnel_find(r->id) : NULL;
		error = t ? take_over(s, t, r->received) : ESRCH;
	} else {
		t = dial(r, &error);
		if (t)
			attach(s, t);
	}
	if (error)
		stream_finish(s, error, r->has_received ? "id" : "connect");
}

static void tunnel_close(struct stream *s)
{
	if (of(s))
		tunnel_leave(of(s));
}

static void tunnel_signal(struct stream *s, int signal)
{
	struct tunnel *t = of(s);

	if (signal != SIGNAL_CANCEL && signal != SIGNAL_LEAVE)
		return;
	stream_finish(s, ECANCELED, "tunnel");
	if (signal == SIGNAL_CANCEL) {
		((struct attachment *)s->state)->tunnel = NULL;
		tunnel_free(t);
	}
}

static void consume(struct stream *s, struct tunnel *t, uint32_t bytes)
{
	t->consumed += bytes;
	stream_consumed(s, bytes);
}

/* How many of the bytes the socket took; all of them when it takes no more. */
static uint32_t pass_on(struct stream *s, struct tunnel *t, const uint8_t *data, uint32_t length)
{
	uint32_t done = 0;

	while (done < length && t->writable && !t->connecting) {
		ssize_t n = send(t->fd, data + done, length - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			t->writable = false;
		} else if (n < 0) {
			consume(s, t, length - done);
			t->input_lost = t->input_ended = true; /* the program takes no more: the rest is dropped */
			return length;
		} else {
			consume(s, t, (uint32_t)n);
			done += (uint32_t)n;
		}
	}
	return done;
}

static void tunnel_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	struct tunnel *t = of(s);
	uint32_t done;
	int error;

	if (t->input_ended)
		return consume(s, t, length);
	done = t->input.length ? 0 : pass_on(s, t, data, length);
	error = done < length ? input_add(&t->input, data + done, length - done) : 0;
	if (error)
		stream_finish(s, error, "tunnel");
}

static void tunnel_end(struct stream *s)
{
	of(s)->end_received = true;
}

static bool pump_input(struct stream *s, struct tunnel *t)
{
	bool moved = false;

	while (t->input.length && t->writable) {
		const uint8_t *at;
		uint32_t piece = input_piece(&t->input, &at), done = pass_on(s, t, at, piece);

		input_drop(&t->input, done);
		moved |= done > 0;
		if (t->input_lost) {
			consume(s, t, t->input.length);
			input_drop(&t->input, t->input.length);
		}
	}
	if (t->end_received && !t->input.length && !t->input_ended) {
		shutdown(t->fd, SHUT_WR);
		consume(s, t, 1);
		t->input_ended = moved = true;
	}
	/* The host tells by this whether the program still waits for bytes, which wake a sandbox that sleeps. */
	if (!t->input.length)
		stream_acknowledge(s);
	return moved;
}

/* The host will never ask again for so many bytes more. */
static void tunnel_credit(struct stream *s, uint32_t bytes)
{
	struct tunnel *t = of(s);

	t->acknowledged += bytes;
	if (t->acknowledged > t->next) {
		t->acknowledged = t->next;
		t->end_acknowledged = t->end_sent;
	}
	if (t->id[0])
		ring_drop(&t->sent, t->acknowledged);
}

static bool send_again(struct stream *s, struct tunnel *t)
{
	size_t room;
	uint8_t *payload = stream_room(s, DATA_CHUNK, &room);

	if (!payload)
		return false;
	room = ring_read(&t->sent, t->next, payload, (uint32_t)room);
	t->next += room;
	stream_send(s, F_DATA, room);
	return true;
}

/* How much can be kept now; idle tunnels give way to this one. */
static uint32_t make_room(struct tunnel *t)
{
	uint32_t room = ring_room(&t->sent, DATA_CHUNK);

	if (room < DATA_CHUNK && t->sent.size < WINDOW) {
		tunnels_release();
		room = ring_room(&t->sent, DATA_CHUNK);
	}
	return room;
}

static bool receive(struct stream *s, struct tunnel *t)
{
	size_t room;
	uint8_t *payload;
	ssize_t n;

	if (!t->readable)
		return false;
	room = t->id[0] ? make_room(t) : DATA_CHUNK;
	payload = stream_room(s, room, &room);
	if (!payload)
		return false;
	n = recv(t->fd, payload, room, 0);
	if (n > 0) {
		if (t->id[0])
			ring_add(&t->sent, payload, (uint32_t)n);
		t->next += (uint64_t)n;
		s->bytes += (uint64_t)n;
		stream_send(s, F_DATA, (size_t)n);
		return true;
	}
	if (n < 0 && errno == EINTR)
		return true;
	t->readable = false;
	if (n < 0 && errno == EAGAIN)
		return false;
	t->output_ended = n == 0;
	if (n < 0) {
		t->error = errno;
		tunnel_disconnect(t);
	}
	return true;
}

/* The end counts as a byte, so that it is acknowledged like the rest. */
static bool send_end(struct stream *s, struct tunnel *t)
{
	size_t room;

	if (t->end_sent || !stream_room(s, 1, &room))
		return false;
	s->credit--;
	out_empty(F_EOF, s->id);
	t->end_sent = true;
	return true;
}

static bool pump_output(struct stream *s, struct tunnel *t)
{
	if (t->id[0] && t->next < t->sent.end)
		return send_again(s, t);
	if (t->output_ended)
		return send_end(s, t);
	return receive(s, t);
}

/* Nothing listens at 127.0.0.1: the same port at [::1]; 0 or an errno. */
static int try_v6(struct tunnel *t)
{
	int fd, error = dial_port(t->port, true, &fd);

	t->port = 0;
	return error ? error : tunnel_redial(t, fd);
}

static void fail(struct stream *s, struct tunnel *t, int error)
{
	((struct attachment *)s->state)->tunnel = NULL;
	tunnel_free(t);
	stream_finish(s, error, "connect");
}

/* Whether the connection was made, now or before. */
static bool is_connected(struct stream *s, struct tunnel *t)
{
	int error;

	if (!t->connecting || !t->writable)
		return !t->connecting;
	error = dial_outcome(t->fd);
	if (error == ECONNREFUSED && t->port && !try_v6(t))
		return false;
	if (error)
		fail(s, t, error);
	else
		t->connecting = false;
	return !error;
}

static bool tell_opened(struct stream *s, const struct tunnel *t)
{
	struct tlv_writer w = out_tlv(32);

	if (w.overflow)
		return false;
	tlv_put_u64(&w, OPENED_CONSUMED, t->consumed);
	out_commit_tlv(F_OPENED, s->id, &w);
	return true;
}

static bool is_over(const struct tunnel *t)
{
	if (t->error)
		return !t->id[0] || t->next == t->sent.end;
	return t->input_ended && t->end_acknowledged;
}

static bool tunnel_pump(struct stream *s)
{
	struct tunnel *t = of(s);
	bool moved;

	if (!is_connected(s, t))
		return false;
	if (!t->opened)
		t->opened = tell_opened(s, t);
	if (!t->opened)
		return false;
	moved = t->fd >= 0 && pump_input(s, t);
	moved |= pump_output(s, t);
	if (!is_over(t))
		return moved;
	tunnel_disconnect(t);
	stream_finish(s, t->error ? t->error : t->input_lost ? EPIPE : 0, "tunnel");
	return true;
}

const struct stream_ops tunnel_ops = {
	.name = OP_TUNNEL,
	.state_size = sizeof(struct attachment),
	.open = tunnel_open,
	.data = tunnel_data,
	.end = tunnel_end,
	.signal = tunnel_signal,
	.credit = tunnel_credit,
	.pump = tunnel_pump,
	.close = tunnel_close,
};
