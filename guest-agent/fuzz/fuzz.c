/*
 * fuzz SEED MILLISECONDS: feeds the parsers of frames and requests with valid frames, mutated frames and
 * noise, cut anywhere. Deterministic for a seed but for where the time ends. Besides the sanitizers it checks
 * that whatever came before, a run of zeros and a RESUME give exactly that RESUME, and not a frame that was cut.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "channel/parser.h"
#include "channel/request.h"
#include "channel/tlv.h"

enum { ZERO_RUN = PAYLOAD_MAX + 64, STREAM_MAX = 4 * PAYLOAD_MAX };

static uint64_t state;

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % below;
}

static size_t frame(uint8_t *to, uint8_t type, uint32_t stream, const uint8_t *payload, uint32_t length)
{
	put_u32(to, length);
	to[4] = type;
	put_u32(to + 5, stream);
	memcpy(to + HEADER_SIZE, payload, length);
	to[HEADER_SIZE + length] = FRAME_WHOLE;
	return HEADER_SIZE + length + (type || length);
}

static size_t some_request(uint8_t *to)
{
	static const char *const ops[] = { "exec", "start", "attach", "processes", "read", "write", "list", "changes", "volume", "" };
	struct tlv_writer w = { to, to + PAYLOAD_MAX, false };
	uint8_t noise[64];

	tlv_put_text(&w, OPEN_OP, ops[pick(10)]);
	for (uint32_t i = pick(20); i > 0; i--) {
		for (size_t at = 0; at < sizeof noise; at++)
			noise[at] = (uint8_t)pick(256);
		tlv_put(&w, (uint8_t)pick(42), noise, pick(sizeof noise));
	}
	return (size_t)(w.at - to);
}

static size_t some_input(uint8_t *to)
{
	static const uint8_t types[] = { 0, 2, 4, 6, 8, 16, 16, 17, 19, 20, 21, 22, 24, 99 };
	static uint8_t payload[PAYLOAD_MAX];
	size_t size = 0;

	for (uint32_t frames = pick(8); frames > 0; frames--) {
		size_t length = pick(3) ? some_request(payload) : pick(16) ? pick(300) : pick(PAYLOAD_MAX + 1);

		size += frame(to + size, types[pick(sizeof types)], pick(4), payload, (uint32_t)length);
		if (size > STREAM_MAX - PAYLOAD_MAX - HEADER_SIZE - 1)
			break;
	}
	for (uint32_t changes = pick(3) ? 0 : pick(9); size && changes > 0; changes--)
		to[pick((uint32_t)size)] = (uint8_t)pick(256);
	return size ? size - pick((uint32_t)size + 1) / (1 + pick(3)) : 0;
}

static void use(const struct parser *parser)
{
	static struct request request;
	/* as long as the frame and no longer, so that a step behind it is seen */
	uint8_t *copy = malloc(parser->length + 1u);

	memcpy(copy, parser->payload, parser->length);
	if (!request_parse(&request, copy, parser->length)) {
		size_t total = request.op ? strlen(request.op) : 0;

		for (size_t i = 0; i < request.argc; i++)
			total += strlen(request.argv[i]);
		if (total > PAYLOAD_MAX)
			abort();
	}
	free(copy);
}

static bool feed(struct parser *parser, const uint8_t *data, size_t size, const uint8_t *nonce)
{
	bool found = false;

	while (size) {
		size_t part = 1 + pick(pick(2) ? 16 : (uint32_t)size), used;
		bool complete;

		part = part > size ? size : part;
		used = parser_feed(parser, data, part, &complete);
		if (used > part || (!used && !complete))
			abort();
		if (complete)
			use(parser);
		found = complete && parser->type == F_RESUME && nonce && !memcmp(parser->payload + 5, nonce, NONCE_SIZE);
		if (complete && nonce && !found)
			abort();
		data += used;
		size -= used;
	}
	return found;
}

static bool resyncs(struct parser *parser)
{
	static uint8_t bytes[ZERO_RUN + 128];
	uint8_t payload[64], nonce[NONCE_SIZE];
	struct tlv_writer w = { payload, payload + sizeof payload, false };

	for (size_t i = 0; i < sizeof nonce; i++)
		nonce[i] = (uint8_t)pick(256);
	tlv_put(&w, RESUME_NONCE, nonce, sizeof nonce);
	return feed(parser, bytes, ZERO_RUN + frame(bytes + ZERO_RUN, F_RESUME, 0, payload, (uint32_t)(w.at - payload)), nonce);
}

int main(int argc, char **argv)
{
	static uint8_t input[STREAM_MAX];
	static struct parser parser;
	clock_t end = clock() + (argc > 2 ? atol(argv[2]) : 1000) * (CLOCKS_PER_SEC / 1000);
	unsigned long rounds = 0;

	state = argc > 1 ? strtoull(argv[1], NULL, 10) * 2654435761u + 1 : 1;
	parser_reset(&parser);
	while (clock() < end) {
		feed(&parser, input, some_input(input), NULL);
		if (!resyncs(&parser)) {
			fprintf(stderr, "round %lu: the parser missed a RESUME\n", rounds);
			return 1;
		}
		rounds++;
	}
	printf("%lu rounds\n", rounds);
	return rounds ? 0 : 1;
}
