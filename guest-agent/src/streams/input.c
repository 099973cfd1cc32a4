#include "streams/input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto.h"

int input_add(struct input *input, const uint8_t *data, uint32_t length)
{
	if (!input->ring)
		input->ring = malloc(WINDOW);
	if (!input->ring)
		return ENOMEM;
	if (length > WINDOW - input->length)
		return EOVERFLOW;
	while (length) {
		uint32_t at = (input->start + input->length) % WINDOW;
		uint32_t part = length < WINDOW - at ? length : WINDOW - at;

		memcpy(input->ring + at, data, part);
		input->length += part;
		data += part;
		length -= part;
	}
	return 0;
}

uint32_t input_piece(const struct input *input, const uint8_t **at)
{
	*at = input->ring + input->start;
	return input->length < WINDOW - input->start ? input->length : WINDOW - input->start;
}

void input_drop(struct input *input, uint32_t length)
{
	input->length -= length;
	input->start = input->length ? (input->start + length) % WINDOW : 0;
}

void input_free(struct input *input)
{
	free(input->ring);
	input->ring = NULL;
	input->start = input->length = 0;
}
