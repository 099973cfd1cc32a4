#include "connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "loop.h"
#include "out.h"

static int dial(int fd, const void *address, socklen_t size)
{
	return connect(fd, address, size) && errno != EINPROGRESS ? errno : 0;
}

static int dial_path(const char *path, int *fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof address.sun_path)
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return *fd < 0 ? errno : dial(*fd, &address, sizeof address);
}

static int dial_port(uint64_t port, int *fd)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (port < 1 || port > 65535)
		return EINVAL;
	address.sin_port = htons((uint16_t)port);
	*fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return *fd < 0 ? errno : dial(*fd, &address, sizeof address);
}

/* Two descriptors of one connection, because each direction has its own events and its own end. */
void connect_open(struct stream *s, const struct request *r)
{
	uint32_t index = (uint32_t)(s - streams);
	int error = r->path ? dial_path(r->path, &s->socket[0].fd) : dial_port(r->port, &s->socket[0].fd);

	s->kind = S_SOCKET;
	if (!error) {
		s->socket[1].fd = fcntl(s->socket[0].fd, F_DUPFD_CLOEXEC, 0);
		if (s->socket[1].fd < 0 || !watch(s->socket[0].fd, W_SOCKET_OUT, index, false) || !watch(s->socket[1].fd, W_SOCKET_IN, index, true))
			error = errno;
	}
	if (error)
		stream_finish(s, error, "connect");
}

void connect_close(struct stream *s)
{
	if (s->socket[0].fd >= 0)
		close(s->socket[0].fd);
	if (s->socket[1].fd >= 0)
		close(s->socket[1].fd);
	s->socket[0].fd = s->socket[1].fd = -1;
}

static void no_more_input(struct stream *s)
{
	shutdown(s->socket[1].fd, SHUT_WR);
	close(s->socket[1].fd);
	s->socket[1].fd = -1;
}

void connect_data(struct stream *s, const uint8_t *data, uint32_t length)
{
	if (s->socket[1].fd < 0 || s->input_ended || s->finished) {
		stream_consumed(s, length);
		return;
	}
	if (!s->input)
		s->input = malloc(WINDOW);
	if (!s->input || length > WINDOW - s->input_length) {
		stream_finish(s, s->input ? EOVERFLOW : ENOMEM, "connection");
		return;
	}
	if (length > WINDOW - s->input_start - s->input_length) {
		memmove(s->input, s->input + s->input_start, s->input_length);
		s->input_start = 0;
	}
	memcpy(s->input + s->input_start + s->input_length, data, length);
	s->input_length += length;
}

void connect_end_input(struct stream *s)
{
	s->input_ended = true;
}

static bool pump_input(struct stream *s)
{
	bool moved = false;

	while (s->socket[1].ready && s->input_length) {
		ssize_t n = send(s->socket[1].fd, s->input + s->input_start, s->input_length, MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			s->socket[1].ready = errno == EINTR;
			continue;
		}
		if (n < 0) { /* the other side reads no more */
			n = s->input_length;
			s->input_ended = true;
		}
		s->input_length -= (uint32_t)n;
		s->input_start = s->input_length ? s->input_start + (uint32_t)n : 0;
		stream_consumed(s, (uint32_t)n);
		moved = true;
	}
	if (s->input_ended && !s->input_length && s->socket[1].fd >= 0 && s->socket[1].ready)
		no_more_input(s);
	return moved;
}

static bool pump_output(struct stream *s)
{
	size_t chunk = s->credit < DATA_CHUNK ? s->credit : DATA_CHUNK;
	uint8_t *payload;
	ssize_t n;

	if (!s->socket[0].ready || !chunk || !out_open_for_data())
		return false;
	payload = out_payload(chunk);
	if (!payload)
		return false;
	n = recv(s->socket[0].fd, payload, chunk, 0);
	if (n > 0) {
		s->credit -= (uint32_t)n;
		s->bytes += (uint64_t)n;
		out_commit(F_DATA, s->id, (size_t)n);
		return true;
	}
	if (n < 0 && errno == EINTR)
		return true;
	s->socket[0].ready = false;
	if (n < 0 && errno == EAGAIN)
		return false;
	stream_finish(s, n < 0 ? errno : 0, "connection");
	return true;
}

bool connect_pump(struct stream *s)
{
	bool moved = !s->finished && pump_input(s);

	return (!s->finished && pump_output(s)) || moved;
}
