#include "sftp/server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "sftp/packet.h"
#include "sftp/requests.h"

static bool write_all(int fd, const uint8_t *at, size_t length)
{
	while (length) {
		ssize_t n = write(fd, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}

/* Answers one request, which is complete. */
static bool answer(int fd, const uint8_t *request, uint32_t length, const char *home)
{
	static uint8_t bytes[SFTP_PACKET_MAX + 64];
	struct sftp_reader reader = { request, request + length, false };
	struct sftp_writer writer = { bytes, sizeof bytes, 4, false };

	if (!sftp_request(&reader, &writer, home) || writer.overflow)
		return false;
	sftp_set_u32(&writer, 0, (uint32_t)writer.length - 4);
	return write_all(fd, bytes, writer.length);
}

void sftp_run(int fd, const struct account *account)
{
	static uint8_t input[SFTP_PACKET_MAX + 4];
	size_t at = 0, end = 0;

	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		struct sftp_reader head = { input + at, input + end, false };
		uint32_t length = sftp_u32(&head);
		ssize_t n;

		if (!head.malformed && (!length || length > SFTP_PACKET_MAX))
			return;
		if (!head.malformed && end - at - 4 >= length) {
			if (!answer(fd, head.at, length, account->home))
				return;
			at += 4 + length;
			continue;
		}
		memmove(input, input + at, end - at);
		end -= at;
		at = 0;
		n = read(fd, input + end, sizeof input - end);
		if (n <= 0 && !(n < 0 && errno == EINTR))
			return;
		end += n > 0 ? (size_t)n : 0;
	}
}
