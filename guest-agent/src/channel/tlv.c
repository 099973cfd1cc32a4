#include "channel/tlv.h"

#include <string.h>

int tlv_next(struct tlv_reader *reader, struct tlv_item *item)
{
	size_t left = (size_t)(reader->end - reader->at);

	if (left == 0)
		return 0;
	if (left < 5 || reader->at[0] == 0)
		return -1;
	item->key = reader->at[0];
	item->length = get_u32(reader->at + 1);
	if (item->length > left - 5)
		return -1;
	item->value = reader->at + 5;
	reader->at = item->value + item->length;
	return 1;
}

bool tlv_uint(const struct tlv_item *item, uint64_t *value)
{
	if (item->length > 8)
		return false;
	*value = 0;
	for (uint32_t i = 0; i < item->length; i++)
		*value |= (uint64_t)item->value[i] << (8 * i);
	return true;
}

void tlv_put(struct tlv_writer *writer, uint8_t key, const void *value, size_t length)
{
	if (writer->overflow || (size_t)(writer->end - writer->at) < length + 5) {
		writer->overflow = true;
		return;
	}
	writer->at[0] = key;
	put_u32(writer->at + 1, (uint32_t)length);
	if (length)
		memcpy(writer->at + 5, value, length);
	writer->at += length + 5;
}

void tlv_put_u32(struct tlv_writer *writer, uint8_t key, uint32_t value)
{
	uint8_t bytes[4];

	put_u32(bytes, value);
	tlv_put(writer, key, bytes, sizeof bytes);
}

void tlv_put_u64(struct tlv_writer *writer, uint8_t key, uint64_t value)
{
	uint8_t bytes[8];

	put_u64(bytes, value);
	tlv_put(writer, key, bytes, sizeof bytes);
}

void tlv_put_text(struct tlv_writer *writer, uint8_t key, const char *text)
{
	tlv_put(writer, key, text, strlen(text));
}
