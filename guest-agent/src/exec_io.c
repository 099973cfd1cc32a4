/* A command's pipes: input from the host by way of a ring, output under the stream's credit. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "exec.h"
#include "out.h"

void io_close(struct pipe_end *end)
{
	if (end->fd >= 0)
		close(end->fd);
	end->fd = -1;
	end->ready = false;
}

void io_input(struct stream *s, const uint8_t *data, uint32_t length)
{
	if (s->in.fd < 0 || s->input_ended) {
		stream_consumed(s, length); /* nobody reads it, as with a closed pipe */
		return;
	}
	if (!s->input)
		s->input = malloc(WINDOW);
	if (!s->input || length > WINDOW - s->input_length) {
		exec_signal(s, 0);
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

static bool pump_input(struct stream *s)
{
	bool moved = false;

	while (s->in.ready && s->input_length) {
		uint32_t part = s->input_length < WINDOW - s->input_start ? s->input_length : WINDOW - s->input_start;
		ssize_t n = write(s->in.fd, s->input + s->input_start, part);

		if (n < 0 && errno == EAGAIN) {
			s->in.ready = false;
			break;
		}
		if (n < 0) { /* the reader is gone: the rest has no taker */
			n = s->input_length;
			s->input_ended = true;
		}
		s->input_start = (s->input_start + (uint32_t)n) % WINDOW;
		s->input_length -= (uint32_t)n;
		stream_consumed(s, (uint32_t)n);
		moved = true;
	}
	if (s->input_ended && !s->input_length)
		io_close(&s->in);
	return moved;
}

static bool pump_output(struct stream *s, struct pipe_end *end, uint8_t type)
{
	size_t chunk = DATA_CHUNK;
	uint8_t *payload;
	ssize_t n;

	if (!end->ready || !end->left || !s->credit || !out_open_for_data())
		return false;
	if (chunk > s->credit)
		chunk = s->credit;
	if (end->left > 0 && chunk > (uint64_t)end->left)
		chunk = (size_t)end->left;
	payload = out_payload(chunk);
	if (!payload)
		return false;
	n = read(end->fd, payload, chunk);
	if (n <= 0) {
		if (n == 0)
			io_close(end);
		end->ready = false;
		if (end->left > 0)
			end->left = 0;
		return n == 0;
	}
	s->credit -= (uint32_t)n;
	if (end->left > 0)
		end->left -= n;
	out_commit(type, s->id, (size_t)n);
	return true;
}

static bool ended(const struct pipe_end *end)
{
	return end->fd < 0 || end->left == 0;
}

bool exec_pump(struct stream *s)
{
	bool moved = pump_input(s);

	moved |= pump_output(s, &s->out, F_DATA);
	moved |= pump_output(s, &s->err, F_DATA_ERR);
	if (s->exited && !s->finished && ended(&s->out) && ended(&s->err))
		stream_finish(s, 0, NULL);
	return moved;
}

/* What the command wrote is what the pipe holds now; what background processes add later is not its output. */
void io_limit(struct pipe_end *end)
{
	int held = 0;

	if (end->fd < 0)
		return;
	ioctl(end->fd, FIONREAD, &held);
	end->left = held;
	end->ready = true;
}
