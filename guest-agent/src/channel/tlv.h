/* Lists of u8 key | u32 length | bytes, little endian. */
#ifndef TLV_H
#define TLV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tlv_reader {
	const uint8_t *at, *end;
};

struct tlv_item {
	uint8_t key;
	uint32_t length;
	const uint8_t *value;
};

/* 1: an item was read; 0: the list ended; -1: the list is malformed. */
int tlv_next(struct tlv_reader *reader, struct tlv_item *item);
/* The value as an integer of up to 8 bytes; false when it is longer. */
bool tlv_uint(const struct tlv_item *item, uint64_t *value);

struct tlv_writer {
	uint8_t *at, *end;
	bool overflow;
};

void tlv_put(struct tlv_writer *writer, uint8_t key, const void *value, size_t length);
void tlv_put_u32(struct tlv_writer *writer, uint8_t key, uint32_t value);
void tlv_put_u64(struct tlv_writer *writer, uint8_t key, uint64_t value);
void tlv_put_text(struct tlv_writer *writer, uint8_t key, const char *text);

static inline uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

static inline void put_u64(uint8_t *p, uint64_t v)
{
	put_u32(p, (uint32_t)v);
	put_u32(p + 4, (uint32_t)(v >> 32));
}

#endif
