#include "streams/tunnel_table.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

static struct tunnel tunnels[TUNNELS];
static size_t used; /* there are none from this one on */

static void ready(struct watch *watch, uint32_t events)
{
	struct tunnel *t = (struct tunnel *)((char *)watch - offsetof(struct tunnel, watch));

	t->readable |= (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
	t->writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
}

struct tunnel *tunnel_find(const char *id)
{
	for (size_t i = 0; i < used; i++)
		if (tunnels[i].used && *id && !strcmp(tunnels[i].id, id))
			return &tunnels[i];
	return NULL;
}

/* A free place; else that of the tunnel which ended longest ago. */
static struct tunnel *free_place(void)
{
	struct tunnel *oldest = NULL;

	for (size_t i = 0; i < used; i++) {
		struct tunnel *t = &tunnels[i];

		if (!t->used)
			return t;
		if (t->fd < 0 && !t->stream && (!oldest || t->expires_ns < oldest->expires_ns))
			oldest = t;
	}
	if (used < TUNNELS)
		return &tunnels[used];
	if (oldest)
		tunnel_free(oldest);
	return oldest;
}

static bool id_is_fine(const char *id)
{
	size_t length = strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz-");

	return length > 0 && length <= TUNNEL_ID_MAX && !id[length];
}

struct tunnel *tunnel_new(const char *id, int fd, int *error)
{
	struct tunnel *t = NULL;

	*error = id && !id_is_fine(id) ? EINVAL : id && tunnel_find(id) ? EEXIST : 0;
	if (!*error) {
		t = free_place();
		*error = t ? 0 : EAGAIN;
	}
	if (!t) {
		close(fd);
		return NULL;
	}
	if (used <= (size_t)(t - tunnels))
		used = (size_t)(t - tunnels) + 1;
	memset(t, 0, sizeof *t);
	t->used = true;
	t->fd = fd;
	t->watch.ready = ready;
	if (id)
		strcpy(t->id, id);
	if (!watch_begin(&t->watch, fd, true)) {
		*error = errno;
		tunnel_free(t);
		return NULL;
	}
	return t;
}

int tunnel_redial(struct tunnel *t, int fd)
{
	watch_end(t->fd);
	close(t->fd);
	t->fd = fd;
	t->readable = t->writable = false;
	return watch_begin(&t->watch, fd, true) ? 0 : errno;
}

void tunnel_disconnect(struct tunnel *t)
{
	struct linger reset = { .l_onoff = 1 };

	if (t->fd < 0)
		return;
	if (!t->output_ended || !t->input_ended)
		setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	watch_end(t->fd);
	close(t->fd);
	t->fd = -1;
	t->connecting = t->readable = t->writable = false;
}

void tunnel_leave(struct tunnel *t)
{
	t->stream = NULL;
	t->opened = t->end_sent = t->end_received = false;
	input_free(&t->input);
	ring_release(&t->sent);
	t->expires_ns = now_ns() + DETACHED_S * 1000000000ull;
	if (!t->id[0])
		tunnel_free(t);
}

void tunnel_free(struct tunnel *t)
{
	tunnel_disconnect(t);
	input_free(&t->input);
	ring_drop(&t->sent, t->sent.end);
	ring_release(&t->sent);
	t->used = false;
	while (used && !tunnels[used - 1].used)
		used--;
}

struct tunnel *tunnel_accepted(const void *listener, struct tunnel *t)
{
	for (size_t i = t ? (size_t)(t - tunnels) + 1 : 0; i < used; i++)
		if (tunnels[i].used && tunnels[i].listener == listener)
			return &tunnels[i];
	return NULL;
}

void tunnels_release(void)
{
	for (size_t i = 0; i < used; i++)
		if (tunnels[i].used)
			ring_release(&tunnels[i].sent);
}

void tunnels_close(void)
{
	while (used)
		tunnel_free(&tunnels[used - 1]);
}

uint64_t tunnels_deadline(void)
{
	uint64_t next = NO_DEADLINE;

	for (size_t i = 0; i < used; i++)
		if (tunnels[i].used && !tunnels[i].stream && tunnels[i].expires_ns < next)
			next = tunnels[i].expires_ns;
	return next;
}

void tunnels_expire(uint64_t now)
{
	for (size_t i = used; i-- > 0;)
		if (i < used && tunnels[i].used && !tunnels[i].stream && tunnels[i].expires_ns <= now)
			tunnel_free(&tunnels[i]);
}
