/* Input from the host that its reader in the guest has not taken yet: a ring of one window, made on first use. */
#ifndef INPUT_H
#define INPUT_H

#include <stdint.h>

struct input {
	uint8_t *ring;
	uint32_t start, length;
};

/* 0, ENOMEM, or EOVERFLOW when the host sent more than it may. */
int input_add(struct input *input, const uint8_t *data, uint32_t length);
/* The oldest bytes that lie in one piece; their number. */
uint32_t input_piece(const struct input *input, const uint8_t **at);
void input_drop(struct input *input, uint32_t length);
void input_free(struct input *input);

#endif
