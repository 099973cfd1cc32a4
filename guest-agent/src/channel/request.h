/* What an OPEN asks for. */
#ifndef REQUEST_H
#define REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REQUEST_ARGS = 1024, REQUEST_ENVS = 1024 };

struct request {
	const char *op, *path, *cmd, *cwd, *user, *id;
	char *argv[REQUEST_ARGS + 1];
	size_t argc;
	char *env[REQUEST_ENVS];
	size_t envc;
	uint64_t script_bytes, timeout_ms, offset, length, mode, port;
	uint64_t flags, rows, cols, err_offset, signal, keep;
	uint64_t received, place;
	bool input, has_mode, has_length, has_received;
	const uint8_t *raw; /* the OPEN's payload itself, whole */
	uint32_t raw_length;
};

/*
 * Reads an OPEN; its strings stay in `payload`, which needs one writable byte behind `length` and is
 * changed (each string is terminated in place). 0 or an errno: EINVAL for a malformed list or a string
 * with a zero byte, E2BIG for too many arguments.
 */
int request_parse(struct request *request, uint8_t *payload, uint32_t length);

#endif
