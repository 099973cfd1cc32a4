#include "files/read.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "files/path.h"
#include "proto.h"

struct reading {
	int file;
	uint64_t left; /* bytes that were asked for and not sent yet */
};

static void read_open(struct stream *s, const struct request *r)
{
	struct reading *reading = s->state;
	int error;

	reading->file = -1;
	reading->left = r->has_length ? r->length : UINT64_MAX;
	error = r->path ? open_regular(r->path, O_RDONLY, 0, &reading->file) : EINVAL;
	if (!error && r->offset && lseek(reading->file, (off_t)r->offset, SEEK_SET) < 0)
		error = errno;
	if (error)
		stream_finish(s, error, "read");
}

static void read_close(struct stream *s)
{
	struct reading *reading = s->state;

	if (reading->file >= 0)
		close(reading->file);
}

static bool read_pump(struct stream *s)
{
	struct reading *reading = s->state;
	size_t chunk = DATA_CHUNK < reading->left ? DATA_CHUNK : (size_t)reading->left, room;
	uint8_t *payload = stream_room(s, chunk ? chunk : 1, &room);
	ssize_t n;

	if (!payload)
		return false;
	n = chunk ? read(reading->file, payload, room) : 0;
	if (n <= 0) {
		stream_finish(s, n < 0 ? errno : 0, "read");
		return true;
	}
	reading->left -= (uint64_t)n;
	s->bytes += (uint64_t)n;
	stream_send(s, F_DATA, (size_t)n);
	return true;
}

const struct stream_ops read_ops = {
	.name = OP_READ,
	.state_size = sizeof(struct reading),
	.open = read_open,
	.pump = read_pump,
	.close = read_close,
};
