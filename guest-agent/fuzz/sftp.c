/*
 * sftp SEED MILLISECONDS DIRECTORY: feeds the parsers of SFTP with valid packets, mutated packets and noise. Besides the
 * sanitizers it checks that nothing is read beyond a packet, and that what was written is read again unchanged.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sftp/attributes.h"
#include "sftp/handles.h"
#include "sftp/packet.h"
#include "sftp/status.h"

static uint64_t state;

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % below;
}

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static size_t some_packet(uint8_t *bytes, size_t size)
{
	struct sftp_writer w = { bytes, size, 0, false };
	struct stat st = { .st_size = (off_t)state, .st_mode = pick(0200000), .st_mtime = pick(2000000000) };
	char text[300];

	for (uint32_t i = pick(6); i > 0; i--) {
		size_t length = pick(sizeof text);

		for (size_t at = 0; at < length; at++)
			text[at] = (char)(pick(16) ? 'a' + (int)pick(26) : (int)pick(256));
		switch (pick(5)) {
		case 0: sftp_put_u32(&w, pick(3) ? pick(300) : (uint32_t)state); break;
		case 1: sftp_put_u64(&w, state); break;
		case 2: sftp_put_bytes(&w, text, length); break;
		case 3: sftp_put_attributes(&w, &st); break;
		case 4: text[length ? length - 1 : 0] = 0; sftp_put_long_name(&w, text, &st); break;
		}
	}
	require(w.overflow || w.length <= size, "a writer wrote too much");
	return w.length;
}

static void read_back(void)
{
	static uint8_t bytes[1024];
	struct sftp_writer w = { bytes, sizeof bytes, 0, false };
	struct sftp_attributes attributes;
	struct stat st = { .st_size = pick(1 << 30), .st_uid = pick(70000), .st_mode = pick(010000), .st_mtime = pick(1 << 30) };
	struct sftp_reader r = { bytes, NULL, false };

	sftp_put_attributes(&w, &st);
	r.end = bytes + w.length;
	sftp_read_attributes(&r, &attributes);
	require(!r.malformed && r.at == r.end, "attributes were not read whole");
	require(attributes.size == (uint64_t)st.st_size && attributes.uid == st.st_uid && attributes.mode == st.st_mode &&
		attributes.mtime == (uint32_t)st.st_mtime, "attributes changed");
}

/* Reads it in a copy of its exact size, so that the sanitizer sees a byte too many. */
static void read_anything(const uint8_t *bytes, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);
	struct sftp_reader r = { copy, copy + length, false };
	struct sftp_attributes attributes;
	char text[64];
	uint32_t size;

	memcpy(copy, bytes, length);
	for (int i = 0; i < 12; i++) {
		switch (pick(6)) {
		case 0: sftp_u32(&r); break;
		case 1: sftp_u64(&r); break;
		case 2: sftp_bytes(&r, &size); break;
		case 3: sftp_text(&r, text, sizeof text); require(strlen(text) < sizeof text, "a text without an end"); break;
		case 4: sftp_read_attributes(&r, &attributes); break;
		case 5: require(!sftp_handle_find(&r), "a handle that nobody made"); break;
		}
		require(r.at <= r.end, "read beyond the end");
	}
	free(copy);
}

int main(int argc, char **argv)
{
	static uint8_t bytes[4096];
	struct timespec now;
	uint64_t until, rounds = 0;

	if (argc < 3)
		return 2;
	state = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
	clock_gettime(CLOCK_MONOTONIC, &now);
	until = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + strtoull(argv[2], NULL, 10);
	do {
		for (int i = 0; i < 100; i++, rounds++) {
			size_t length = some_packet(bytes, 1 + pick(sizeof bytes));

			for (uint32_t flips = pick(4); length && flips > 0; flips--)
				bytes[pick((uint32_t)length)] = (uint8_t)pick(256);
			read_anything(bytes, length ? pick((uint32_t)length + 1) : 0);
			read_back();
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 < until);
	printf("%llu rounds\n", (unsigned long long)rounds);
	return 0;
}
