/* Version 1 of the guest channel's protocol: see docs/design/0001-guest-channel.md. */
#ifndef PROTO_H
#define PROTO_H

#include <stdint.h>

enum { PROTO_VERSION = 1, HEADER_SIZE = 9, PAYLOAD_MAX = 65536, WINDOW = 256 * 1024, NONCE_SIZE = 16 };

enum frame_type {
	F_PAD = 0, F_HELLO = 1, F_RESUME = 2, F_RESUMED = 3, F_QUIESCE = 4, F_QUIET = 5, F_PING = 6, F_PONG = 7,
	F_THAW = 8,
	F_OPEN = 16, F_DATA = 17, F_DATA_ERR = 18, F_EOF = 19, F_CREDIT = 20, F_SIGNAL = 21, F_RESULT = 22,
};

/* Key 0 is never used: a frame that a resync cut short and filled with zeros must not parse. */
enum hello_key { HELLO_VERSION = 1 };
enum resume_key {
	RESUME_NONCE = 1, RESUME_TIME_NS = 2, RESUME_ENTROPY = 3, RESUME_GENERATION = 4,
	RESUME_HOSTNAME = 5, RESUME_MACHINE_ID = 6, RESUME_ENV = 7, RESUME_BOOT_ID = 8,
};
enum resumed_key { RESUMED_NONCE = 1, RESUMED_ERROR = 2 };
enum open_key {
	OPEN_OP = 1, OPEN_PATH = 2, OPEN_ARGV = 3, OPEN_CMD = 4, OPEN_SCRIPT_BYTES = 5, OPEN_CWD = 6, OPEN_ENV = 7,
	OPEN_USER = 8, OPEN_TIMEOUT_MS = 9, OPEN_STDIN = 10, OPEN_OFFSET = 11, OPEN_LENGTH = 12, OPEN_MODE = 13,
	OPEN_PORT = 14,
};
enum result_key {
	RESULT_ERRNO = 1, RESULT_MESSAGE = 2, RESULT_EXIT_CODE = 3, RESULT_SIGNAL = 4, RESULT_TIMED_OUT = 5,
	RESULT_DURATION_US = 6, RESULT_UTIME_US = 7, RESULT_STIME_US = 8, RESULT_MAXRSS_KB = 9,
	RESULT_BYTES = 10, RESULT_ENTRY = 11,
};
enum entry_key {
	ENTRY_NAME = 1, ENTRY_TYPE = 2, ENTRY_SIZE = 3, ENTRY_MODE = 4, ENTRY_MTIME = 5, ENTRY_UID = 6, ENTRY_GID = 7,
};

#endif
