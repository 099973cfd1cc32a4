#include "channel/request.h"

#include <errno.h>
#include <string.h>

#include "proto.h"
#include "channel/tlv.h"

static int take_text(struct request *r, uint8_t key, char *text)
{
	switch (key) {
	case OPEN_OP: r->op = text; break;
	case OPEN_PATH: r->path = text; break;
	case OPEN_CMD: r->cmd = text; break;
	case OPEN_CWD: r->cwd = text; break;
	case OPEN_USER: r->user = text; break;
	case OPEN_ID: r->id = text; break;
	case OPEN_ARGV:
		if (r->argc == REQUEST_ARGS)
			return E2BIG;
		r->argv[r->argc++] = text;
		break;
	case OPEN_ENV:
		if (r->envc == REQUEST_ENVS)
			return E2BIG;
		r->env[r->envc++] = text;
		break;
	}
	return 0;
}

static bool is_text(uint8_t key)
{
	return key == OPEN_OP || key == OPEN_PATH || key == OPEN_CMD || key == OPEN_CWD || key == OPEN_USER ||
	       key == OPEN_ID || key == OPEN_ARGV || key == OPEN_ENV;
}

static int take_number(struct request *r, const struct tlv_item *item)
{
	uint64_t value;

	if (!tlv_uint(item, &value))
		return EINVAL;
	switch (item->key) {
	case OPEN_SCRIPT_BYTES: r->script_bytes = value; break;
	case OPEN_TIMEOUT_MS: r->timeout_ms = value; break;
	case OPEN_STDIN: r->input = true; break;
	case OPEN_OFFSET: r->offset = value; break;
	case OPEN_LENGTH: r->length = value; r->has_length = true; break;
	case OPEN_MODE: r->mode = value; r->has_mode = true; break;
	case OPEN_FLAGS: r->flags = value; break;
	case OPEN_ROWS: r->rows = value; break;
	case OPEN_COLS: r->cols = value; break;
	case OPEN_ERR_OFFSET: r->err_offset = value; break;
	case OPEN_SIGNAL: r->signal = value; break;
	case OPEN_KEEP: r->keep = value; break;
	case OPEN_RECEIVED: r->received = value; r->has_received = true; break;
	case OPEN_PLACE: r->place = value; break;
	case OPEN_PORT: r->port = value; break;
	}
	return 0;
}

static bool known_number(uint8_t key)
{
	return key == OPEN_SCRIPT_BYTES || (key >= OPEN_TIMEOUT_MS && key <= OPEN_PORT) ||
	       (key >= OPEN_FLAGS && key <= OPEN_PLACE);
}

int request_parse(struct request *r, uint8_t *payload, uint32_t length)
{
	struct tlv_reader reader = { payload, payload + length };
	struct tlv_item item;
	uint8_t *last = NULL; /* end of the string before: its terminator replaces a key that was read */
	int more, error = 0;

	memset(r, 0, sizeof *r);
	while (!error && (more = tlv_next(&reader, &item)) != 0) {
		uint8_t *value = payload + (item.value - payload);

		if (last)
			*last = 0;
		last = NULL;
		if (more < 0)
			return EINVAL;
		if (is_text(item.key)) {
			if (memchr(value, 0, item.length))
				return EINVAL;
			last = value + item.length;
			error = take_text(r, item.key, (char *)value);
		} else if (known_number(item.key)) {
			error = take_number(r, &item);
		}
	}
	if (last)
		*last = 0;
	return error;
}
