/* The frames on their way to the host: one bounded buffer, written when the port takes it. */
#ifndef OUT_H
#define OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/tlv.h"

enum {
	OUT_SIZE = 256 * 1024,
	OUT_DATA_LIMIT = 64 * 1024, /* streams add no data while more than this waits */
	OUT_INPUT_LIMIT = 128 * 1024, /* and nothing is read from the host while more than this waits */
	RESULT_ROOM = 2048,
};

size_t out_pending(void);
bool out_open_for_data(void);
/* Forgets everything that waits, even a half-written frame: only before a RESUMED, which the host looks for. */
void out_reset(void);
/* Room for a payload of `size` bytes behind a header, or NULL. Nothing is sent until out_commit. */
uint8_t *out_payload(size_t size);
void out_commit(uint8_t type, uint32_t stream, size_t length);
void out_empty(uint8_t type, uint32_t stream);
void out_credit(uint32_t stream, uint32_t bytes);
struct tlv_writer out_tlv(size_t size);
void out_commit_tlv(uint8_t type, uint32_t stream, const struct tlv_writer *writer);
/* Writes what the descriptor takes now. */
void out_flush(int fd);

#endif
