/* Incremental parser of frames; it allocates nothing and survives any input. */
#ifndef PARSER_H
#define PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto.h"

enum { SCAN_WINDOW = HEADER_SIZE + 5 };

enum parser_state { P_HEADER, P_PAYLOAD, P_ZEROS, P_SCAN };

struct parser {
	enum parser_state state;
	uint32_t filled; /* bytes of the header, payload or scan window that are here */
	uint32_t length, stream;
	uint8_t type;
	uint8_t header[SCAN_WINDOW];
	uint8_t payload[PAYLOAD_MAX + 1]; /* and FRAME_WHOLE; a last string may be terminated in its place */
};

void parser_reset(struct parser *parser);

/*
 * Takes bytes until one frame is complete (*complete, and then type, stream, length and payload are
 * valid until the next call) or the input is used up. Returns the number of bytes taken.
 *
 * A malformed frame puts the parser into P_SCAN, where it looks for the start of a RESUME and drops
 * everything before it. A host that takes over first sends a run of zeros long enough to end any frame that
 * was cut. Such a frame is dropped, since it does not end with FRAME_WHOLE. The run goes on with an empty PAD,
 * after which zeros are skipped: nobody knows how many of them the frame swallowed. The frame after the run
 * is a RESUME, whose first byte the host never lets be zero.
 */
size_t parser_feed(struct parser *parser, const uint8_t *data, size_t size, bool *complete);

#endif
