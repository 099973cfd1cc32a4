#include "channel/parser.h"

#include <string.h>

#include "channel/tlv.h"

void parser_reset(struct parser *parser)
{
	parser->state = P_HEADER;
	parser->filled = 0;
}

static bool from_host(uint8_t type)
{
	switch (type) {
	case F_PAD: case F_RESUME: case F_QUIESCE: case F_PING: case F_THAW:
	case F_OPEN: case F_DATA: case F_EOF: case F_CREDIT: case F_SIGNAL: case F_RESIZE:
		return true;
	default:
		return false;
	}
}

static void take_header(struct parser *parser)
{
	parser->length = get_u32(parser->header);
	parser->type = parser->header[4];
	parser->stream = get_u32(parser->header + 5);
	parser->filled = 0;
	if (parser->length > PAYLOAD_MAX || !from_host(parser->type)) {
		parser->state = P_SCAN;
		return;
	}
	parser->state = parser->type == F_PAD && !parser->length ? P_ZEROS : P_PAYLOAD;
}

/* Whether the window holds the header of a RESUME and the start of its first item, the nonce. */
static bool is_resume(const uint8_t *window)
{
	static const uint8_t tail[] = { F_RESUME, 0, 0, 0, 0, RESUME_NONCE, NONCE_SIZE, 0, 0, 0 };

	return get_u32(window) <= PAYLOAD_MAX && get_u32(window) >= NONCE_SIZE + 5 && !memcmp(window + 4, tail, sizeof tail);
}

static void scan(struct parser *parser, uint8_t byte)
{
	if (parser->filled == SCAN_WINDOW) {
		memmove(parser->header, parser->header + 1, SCAN_WINDOW - 1);
		parser->filled--;
	}
	parser->header[parser->filled++] = byte;
	if (parser->filled < SCAN_WINDOW || !is_resume(parser->header))
		return;
	take_header(parser);
	memcpy(parser->payload, parser->header + HEADER_SIZE, SCAN_WINDOW - HEADER_SIZE);
	parser->filled = SCAN_WINDOW - HEADER_SIZE;
}

static size_t fill(struct parser *parser, uint8_t *into, uint32_t want, const uint8_t *data, size_t size)
{
	size_t part = want - parser->filled;

	if (part > size)
		part = size;
	memcpy(into + parser->filled, data, part);
	parser->filled += (uint32_t)part;
	return part;
}

size_t parser_feed(struct parser *parser, const uint8_t *data, size_t size, bool *complete)
{
	size_t used = 0;

	*complete = false;
	while (used < size && !*complete) {
		switch (parser->state) {
		case P_SCAN:
			scan(parser, data[used++]);
			break;
		case P_ZEROS:
			if (data[used] == 0)
				used++;
			else
				parser_reset(parser);
			break;
		case P_HEADER:
			used += fill(parser, parser->header, HEADER_SIZE, data + used, size - used);
			if (parser->filled == HEADER_SIZE)
				take_header(parser);
			break;
		case P_PAYLOAD:
			used += fill(parser, parser->payload, parser->length + 1, data + used, size - used);
			if (parser->filled <= parser->length)
				break;
			*complete = parser->type != F_PAD && parser->payload[parser->length] == FRAME_WHOLE;
			parser_reset(parser);
			break;
		}
	}
	return used;
}
