#include "streams/connect.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto.h"
#include "streams/dial.h"
#include "streams/input.h"
#include "watch.h"

struct connection {
	struct watch watch;
	int fd;
	bool readable, writable; /* edge triggered: false after EAGAIN */
	bool input_ended;
	struct input input;
};

static void ready(struct watch *watch, uint32_t events)
{
	struct connection *c = (struct connection *)watch;

	c->readable |= (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
	c->writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
}

static void connect_open(struct stream *s, const struct request *r)
{
	struct connection *c = s->state;
	int error = r->path ? dial_path(r->path, &c->fd) : dial_port(r->port, &c->fd);

	c->watch.ready = ready;
	if (!error && !watch_begin(&c->watch, c->fd, true))
		error = errno;
	if (error)
		stream_finish(s, error, "connect");
}

static void connect_close(struct stream *s)
{
	struct connection *c = s->state;

	input_free(&c->input);
	if (c->fd < 0)
		return;
	watch_end(c->fd);
	close(c->fd);
}

static void connect_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	struct connection *c = s->state;
	int error;

	if (c->input_ended)
		return stream_consumed(s, length);
	error = input_add(&c->input, data, length);
	if (error)
		stream_finish(s, error, "connection");
}

static void connect_end(struct stream *s)
{
	struct connection *c = s->state;

	c->input_ended = true;
}

static bool pump_input(struct stream *s, struct connection *c)
{
	bool moved = false;

	while (c->writable && c->input.length) {
		const uint8_t *at;
		uint32_t piece = input_piece(&c->input, &at);
		ssize_t n = send(c->fd, at, piece, MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			c->writable = errno == EINTR;
			continue;
		}
		if (n < 0) { /* the other side reads no more */
			n = c->input.length;
			c->input_ended = true;
		}
		input_drop(&c->input, (uint32_t)n);
		stream_consumed(s, (uint32_t)n);
		moved = true;
	}
	if (c->input_ended && !c->input.length && c->writable) {
		shutdown(c->fd, SHUT_WR);
		c->writable = false;
	}
	return moved;
}

static bool pump_output(struct stream *s, struct connection *c)
{
	size_t room;
	uint8_t *payload = c->readable ? stream_room(s, DATA_CHUNK, &room) : NULL;
	ssize_t n;

	if (!payload)
		return false;
	n = recv(c->fd, payload, room, 0);
	if (n > 0) {
		s->bytes += (uint64_t)n;
		stream_send(s, F_DATA, (size_t)n);
		return true;
	}
	if (n < 0 && errno == EINTR)
		return true;
	c->readable = false;
	if (n < 0 && errno == EAGAIN)
		return false;
	stream_finish(s, n < 0 ? errno : 0, "connection");
	return true;
}

static bool connect_pump(struct stream *s)
{
	struct connection *c = s->state;
	bool moved = pump_input(s, c);

	return pump_output(s, c) || moved;
}

const struct stream_ops connect_ops = {
	.name = OP_CONNECT,
	.state_size = sizeof(struct connection),
	.open = connect_open,
	.data = connect_data,
	.end = connect_end,
	.pump = connect_pump,
	.close = connect_close,
};
