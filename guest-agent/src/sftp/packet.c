#include "sftp/packet.h"

#include <string.h>

static const uint8_t *take(struct sftp_reader *r, size_t size)
{
	const uint8_t *at = r->at;

	if (r->malformed || (size_t)(r->end - r->at) < size) {
		r->malformed = true;
		return NULL;
	}
	r->at += size;
	return at;
}

uint32_t sftp_u32(struct sftp_reader *r)
{
	const uint8_t *p = take(r, 4);

	return p ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
}

uint64_t sftp_u64(struct sftp_reader *r)
{
	uint64_t high = sftp_u32(r);

	return high << 32 | sftp_u32(r);
}

const uint8_t *sftp_bytes(struct sftp_reader *r, uint32_t *length)
{
	const uint8_t *p;

	*length = sftp_u32(r);
	p = take(r, *length);
	if (!p)
		*length = 0;
	return p;
}

void sftp_text(struct sftp_reader *r, char *text, size_t size)
{
	uint32_t length;
	const uint8_t *p = sftp_bytes(r, &length);

	if (length >= size || (p && memchr(p, 0, length))) {
		r->malformed = true;
		length = 0;
	}
	if (length)
		memcpy(text, p, length);
	text[length] = 0;
}

static uint8_t *grow(struct sftp_writer *w, size_t size)
{
	uint8_t *at = w->bytes + w->length;

	if (w->overflow || w->size - w->length < size) {
		w->overflow = true;
		return NULL;
	}
	w->length += size;
	return at;
}

static void set_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

void sftp_put_u8(struct sftp_writer *w, uint8_t v)
{
	uint8_t *p = grow(w, 1);

	if (p)
		*p = v;
}

void sftp_put_u32(struct sftp_writer *w, uint32_t v)
{
	uint8_t *p = grow(w, 4);

	if (p)
		set_u32(p, v);
}

void sftp_put_u64(struct sftp_writer *w, uint64_t v)
{
	sftp_put_u32(w, (uint32_t)(v >> 32));
	sftp_put_u32(w, (uint32_t)v);
}

void sftp_put_bytes(struct sftp_writer *w, const void *bytes, size_t length)
{
	uint8_t *p;

	sftp_put_u32(w, (uint32_t)length);
	p = grow(w, length);
	if (p && length)
		memcpy(p, bytes, length);
}

void sftp_put_text(struct sftp_writer *w, const char *text)
{
	sftp_put_bytes(w, text, strlen(text));
}

void sftp_set_u32(struct sftp_writer *w, size_t at, uint32_t v)
{
	if (at + 4 <= w->length)
		set_u32(w->bytes + at, v);
}
