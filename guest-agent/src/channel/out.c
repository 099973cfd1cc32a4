#include "channel/out.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "proto.h"

static uint8_t buffer[OUT_SIZE];
static size_t start, end;

size_t out_pending(void)
{
	return end - start;
}

bool out_open_for_data(void)
{
	return out_pending() < OUT_DATA_LIMIT;
}

void out_reset(void)
{
	start = end = 0;
}

uint8_t *out_payload(size_t size)
{
	if (OUT_SIZE - end < size + HEADER_SIZE && start > 0) {
		memmove(buffer, buffer + start, end - start);
		end -= start;
		start = 0;
	}
	if (OUT_SIZE - end < size + HEADER_SIZE)
		return NULL;
	return buffer + end + HEADER_SIZE;
}

void out_commit(uint8_t type, uint32_t stream, size_t length)
{
	put_u32(buffer + end, (uint32_t)length);
	buffer[end + 4] = type;
	put_u32(buffer + end + 5, stream);
	end += HEADER_SIZE + length;
}

void out_empty(uint8_t type, uint32_t stream)
{
	if (out_payload(0))
		out_commit(type, stream, 0);
}

void out_credit(uint32_t stream, uint32_t bytes)
{
	uint8_t *payload = out_payload(4);

	if (!payload)
		return;
	put_u32(payload, bytes);
	out_commit(F_CREDIT, stream, 4);
}

struct tlv_writer out_tlv(size_t size)
{
	uint8_t *payload = out_payload(size);

	return (struct tlv_writer){ payload, payload ? payload + size : NULL, payload == NULL };
}

void out_commit_tlv(uint8_t type, uint32_t stream, const struct tlv_writer *writer)
{
	if (!writer->overflow)
		out_commit(type, stream, (size_t)(writer->at - (buffer + end + HEADER_SIZE)));
}

void out_flush(int fd)
{
	while (start < end) {
		ssize_t n = write(fd, buffer + start, end - start);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* full, or the host is away: reading will tell if it is gone */
		start += (size_t)n;
	}
	start = end = 0;
}
