/* SFTP's encoding (draft-ietf-secsh-filexfer-02): big endian numbers, strings with their length in front. */
#ifndef SFTP_PACKET_H
#define SFTP_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SFTP_PACKET_MAX = 256 * 1024 };

struct sftp_reader {
	const uint8_t *at, *end;
	bool malformed; /* something was missing: what was read since is zero or empty */
};

uint32_t sftp_u32(struct sftp_reader *reader);
uint64_t sftp_u64(struct sftp_reader *reader);
/* The bytes stay in the packet. */
const uint8_t *sftp_bytes(struct sftp_reader *reader, uint32_t *length);
/* A string that ends with a zero; malformed when it is longer or has a zero in it. */
void sftp_text(struct sftp_reader *reader, char *text, size_t size);

struct sftp_writer {
	uint8_t *bytes;
	size_t size, length;
	bool overflow;
};

void sftp_put_u8(struct sftp_writer *writer, uint8_t value);
void sftp_put_u32(struct sftp_writer *writer, uint32_t value);
void sftp_put_u64(struct sftp_writer *writer, uint64_t value);
void sftp_put_bytes(struct sftp_writer *writer, const void *bytes, size_t length);
void sftp_put_text(struct sftp_writer *writer, const char *text);
/* Writes a number over four bytes that were written before. */
void sftp_set_u32(struct sftp_writer *writer, size_t at, uint32_t value);

#endif
