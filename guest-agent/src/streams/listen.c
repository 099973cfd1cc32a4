#include "streams/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "channel/out.h"
#include "proto.h"
#include "streams/dial.h"
#include "streams/tunnel_table.h"
#include "watch.h"

enum {
	LISTENERS = 64,
	WAITING_MAX = 64, /* accepted connections that nobody is attached to yet; more wait in the kernel */
	SOCKETS = 2, /* 127.0.0.1 and [::1] */
};

struct door {
	struct watch watch;
	int fd; /* -1: none */
	bool ready; /* edge triggered: false after EAGAIN */
};

struct listener {
	bool used;
	char id[TUNNEL_ID_MAX + 1]; /* "": it ends with its stream */
	uint16_t port;
	char path[sizeof((struct sockaddr_un *)NULL)->sun_path];
	struct door doors[SOCKETS];
	struct stream *stream; /* NULL: none is attached */
	bool opened;
	uint64_t expires_ns; /* without a stream */
};

struct attachment {
	struct listener *listener; /* NULL: it could not be made */
};

static struct listener listeners[LISTENERS];

static struct listener *of(struct stream *s)
{
	return ((struct attachment *)s->state)->listener;
}

static void ready(struct watch *watch, uint32_t events)
{
	(void)events;
	((struct door *)watch)->ready = true;
}

static void close_listener(struct listener *l)
{
	struct tunnel *t;

	for (int i = 0; i < SOCKETS; i++)
		if (l->doors[i].fd >= 0) {
			watch_end(l->doors[i].fd);
			close(l->doors[i].fd);
		}
	if (l->path[0])
		unlink(l->path);
	while ((t = tunnel_accepted(l, NULL)))
		tunnel_free(t);
	l->used = false;
}

void listeners_close(void)
{
	for (size_t i = 0; i < LISTENERS; i++)
		if (listeners[i].used)
			close_listener(&listeners[i]);
}

/* Binds one socket and watches it; 0 or an errno. */
static int open_door(struct door *d, const union address *address, socklen_t size)
{
	int on = 1, error = 0;

	d->watch.ready = ready;
	d->fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fd < 0)
		return errno;
	if (address->any.sa_family != AF_UNIX)
		setsockopt(d->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (address->any.sa_family == AF_INET6)
		setsockopt(d->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(d->fd, &address->any, size) || listen(d->fd, SOMAXCONN) || !watch_begin(&d->watch, d->fd, false))
		error = errno;
	if (error) {
		close(d->fd);
		d->fd = -1;
	}
	return error;
}

static int open_port(struct listener *l, uint16_t port)
{
	union address address;
	socklen_t size = address_of_port(&address, port, false);
	int error = open_door(&l->doors[0], &address, size);

	if (error)
		return error;
	l->port = port;
	size = address_of_port(&address, port, true);
	error = open_door(&l->doors[1], &address, size);
	return error == EAFNOSUPPORT || error == EADDRNOTAVAIL ? 0 : error; /* a guest without IPv6 */
}

static int open_path(struct listener *l, const char *path, mode_t mode)
{
	union address address;
	socklen_t size = address_of_path(&address, path);
	int error = size ? open_door(&l->doors[0], &address, size) : ENAMETOOLONG;

	if (error)
		return error;
	strcpy(l->path, path);
	return chmod(path, mode) ? errno : 0;
}

static struct listener *free_place(void)
{
	for (size_t i = 0; i < LISTENERS; i++)
		if (!listeners[i].used)
			return &listeners[i];
	return NULL;
}

static struct listener *find(const char *id)
{
	for (size_t i = 0; id && i < LISTENERS; i++)
		if (listeners[i].used && !strcmp(listeners[i].id, id))
			return &listeners[i];
	return NULL;
}

static struct listener *begin(const struct request *r, int *error)
{
	struct listener *l = free_place();

	*error = !l ? EAGAIN : r->id && (!*r->id || strlen(r->id) > TUNNEL_ID_MAX) ? EINVAL : 0;
	if (*error)
		return NULL;
	memset(l, 0, sizeof *l);
	l->used = true;
	l->doors[0].fd = l->doors[1].fd = -1;
	if (r->id)
		strcpy(l->id, r->id);
	*error = EINVAL;
	if (r->path)
		*error = open_path(l, r->path, r->has_mode ? (mode_t)r->mode & 0777 : 0666);
	else if (r->port > 0 && r->port < 65536)
		*error = open_port(l, (uint16_t)r->port);
	if (!*error)
		return l;
	close_listener(l);
	return NULL;
}

static void leave(struct listener *l)
{
	l->stream = NULL;
	l->opened = false;
	l->expires_ns = now_ns() + DETACHED_S * 1000000000ull;
	if (!l->id[0])
		close_listener(l);
}

/* The same id and address again: the listener moves to this stream, and what waits is announced again. */
static int take_over(struct listener *l, const struct request *r)
{
	if (r->path ? strcmp(r->path, l->path) != 0 : r->port != l->port)
		return EEXIST;
	if (l->stream) {
		((struct attachment *)l->stream->state)->listener = NULL;
		stream_finish(l->stream, ECANCELED, "attached to by another stream");
		leave(l);
	}
	for (struct tunnel *t = NULL; (t = tunnel_accepted(l, t));)
		t->announced = false;
	return 0;
}

static void listen_open(struct stream *s, const struct request *r)
{
	struct listener *l = find(r->id);
	int error;

	if (l)
		error = take_over(l, r);
	else
		l = begin(r, &error);
	if (error)
		return stream_finish(s, error, "listen");
	l->stream = s;
	((struct attachment *)s->state)->listener = l;
}

static void listen_close(struct stream *s)
{
	if (of(s))
		leave(of(s));
}

static void listen_signal(struct stream *s, int signal)
{
	struct listener *l = of(s);

	if (signal != SIGNAL_CANCEL && signal != SIGNAL_LEAVE)
		return;
	stream_finish(s, ECANCELED, "listen");
	if (signal == SIGNAL_CANCEL) {
		((struct attachment *)s->state)->listener = NULL;
		close_listener(l);
	}
}

/* Nobody can guess it, and a machine that was rewound does not use one twice. */
static void make_id(char id[33])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t bytes[16];

	(void)!getrandom(bytes, sizeof bytes, 0);
	for (size_t i = 0; i < sizeof bytes; i++) {
		id[2 * i] = digits[bytes[i] >> 4];
		id[2 * i + 1] = digits[bytes[i] & 15];
	}
	id[32] = 0;
}

static bool accept_one(struct listener *l, struct door *d)
{
	int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), error;
	struct tunnel *t;
	char id[33];

	if (fd < 0) {
		d->ready = errno == EINTR || errno == ECONNABORTED;
		return d->ready;
	}
	make_id(id);
	t = tunnel_new(id, fd, &error);
	if (t) {
		t->listener = l;
		t->expires_ns = now_ns() + DETACHED_S * 1000000000ull;
	}
	return true;
}

static bool announce(struct stream *s, struct tunnel *t)
{
	size_t room, size = 5 + strlen(t->id);
	uint8_t *payload = stream_room(s, size, &room);
	struct tlv_writer w = { payload, payload + size, false };

	if (!payload || room < size)
		return false;
	tlv_put_text(&w, RESULT_TUNNEL, t->id);
	stream_send(s, F_DATA, size);
	t->announced = true;
	return true;
}

static bool listen_pump(struct stream *s)
{
	struct listener *l = of(s);
	size_t waiting = 0;
	bool moved = false;

	if (!l->opened) {
		if (!out_payload(0))
			return false;
		out_empty(F_OPENED, s->id);
		l->opened = true;
	}
	for (struct tunnel *t = NULL; (t = tunnel_accepted(l, t)); waiting++)
		if (!t->announced)
			moved |= announce(s, t);
	for (int i = 0; i < SOCKETS; i++)
		if (l->doors[i].ready && waiting < WAITING_MAX)
			moved |= accept_one(l, &l->doors[i]);
	return moved;
}

uint64_t listeners_deadline(void)
{
	uint64_t next = NO_DEADLINE;

	for (size_t i = 0; i < LISTENERS; i++)
		if (listeners[i].used && !listeners[i].stream && listeners[i].expires_ns < next)
			next = listeners[i].expires_ns;
	return next;
}

void listeners_expire(uint64_t now)
{
	for (size_t i = 0; i < LISTENERS; i++)
		if (listeners[i].used && !listeners[i].stream && listeners[i].expires_ns <= now)
			close_listener(&listeners[i]);
}

const struct stream_ops listen_ops = {
	.name = OP_LISTEN,
	.state_size = sizeof(struct attachment),
	.open = listen_open,
	.signal = listen_signal,
	.pump = listen_pump,
	.close = listen_close,
};
