/*
 * One command or login shell, with its input, outputs, terminal, signals and end as frames on one socket: u8 type, u32
 * length (little endian), payload. It ends with the socket: a terminal is hung up then, pipes are closed.
 */
#ifndef SESSION_SERVICE_H
#define SESSION_SERVICE_H

#include "processes/account.h"

enum { SESSION_FRAME_MAX = 65536 };

enum session_frame {
	SESSION_START = 1, /* to the guest, first: a list as in an OPEN, of OPEN_CMD (none: login shell), OPEN_ENV, OPEN_ROWS, OPEN_COLS */
	SESSION_INPUT = 2, SESSION_INPUT_END = 3,
	SESSION_SIGNAL = 4, /* u8, to the process group in the foreground */
	SESSION_RESIZE = 5, /* u16 rows, u16 columns */
	SESSION_OUTPUT = 16, SESSION_ERROR = 17,
	SESSION_EXIT = 18, /* u8 exit code, u8 signal: last */
	SESSION_FAILED = 19, /* why nothing was run: last */
};

/* Serves the socket until the command has ended and all its output is sent. */
void session_run(int fd, const struct account *account);

#endif
