/* The guest channel's protocol: see docs/design/0001-guest-channel.md, 0012-processes.md and 0024-tunnels.md. */
#ifndef PROTO_H
#define PROTO_H

#include <stdint.h>

enum { PROTO_VERSION = 3, HEADER_SIZE = 9, PAYLOAD_MAX = 65536, WINDOW = 256 * 1024, NONCE_SIZE = 16, FRAME_WHOLE = 1 };

enum frame_type {
	F_PAD = 0, F_HELLO = 1, F_RESUME = 2, F_RESUMED = 3, F_QUIESCE = 4, F_QUIET = 5, F_PING = 6, F_PONG = 7,
	F_THAW = 8,
	F_OPEN = 16, F_DATA = 17, F_DATA_ERR = 18, F_EOF = 19, F_CREDIT = 20, F_SIGNAL = 21, F_RESULT = 22,
	F_AT = 23, F_RESIZE = 24, F_OPENED = 25,
};

/* What an OPEN asks for. */
#define OP_EXEC "exec"
#define OP_START "start"
#define OP_REHEARSE "rehearse"
#define OP_ATTACH "attach"
#define OP_INPUT "input"
#define OP_PROCESSES "processes"
#define OP_SIGNAL "signal"
#define OP_READ "read"
#define OP_WRITE "write"
#define OP_STAT "stat"
#define OP_LIST "list"
#define OP_DELETE "delete"
#define OP_MKDIR "mkdir"
#define OP_SYNC "sync"
#define OP_CHANGES "changes"
#define OP_REMEMBER "remember"
#define OP_TUNNEL "tunnel"
#define OP_LISTEN "listen"
#define OP_VOLUME "volume"

/* Key 0 is never used: a frame that a resync cut short and filled with zeros must not parse. */
enum hello_key { HELLO_VERSION = 1 };
enum resume_key {
	RESUME_NONCE = 1, RESUME_TIME_NS = 2, RESUME_ENTROPY = 3, RESUME_GENERATION = 4,
	RESUME_HOSTNAME = 5, RESUME_MACHINE_ID = 6, RESUME_ENV = 7, RESUME_FROZEN = 9,
	RESUME_CONTINUES = 10, /* present: this machine continues where it stopped, and is no copy */
	RESUME_CPUS = 11, RESUME_MEMORY_MB = 12, RESUME_DISK_MB = 13, /* all or none: the machine gets this size */
	RESUME_CONNECTED = 14, /* present: its network is the one it had, and so are its connections to other machines */
	RESUME_PADDING = 255, /* read by nobody */
};
enum resumed_key { RESUMED_NONCE = 1, RESUMED_ERROR = 2, RESUMED_VERSION = 3 };
enum opened_key { OPENED_CONSUMED = 1 };
enum open_key {
	OPEN_OP = 1, OPEN_PATH = 2, OPEN_ARGV = 3, OPEN_CMD = 4, OPEN_SCRIPT_BYTES = 5, OPEN_CWD = 6, OPEN_ENV = 7,
	OPEN_USER = 8, OPEN_TIMEOUT_MS = 9, OPEN_STDIN = 10, OPEN_OFFSET = 11, OPEN_LENGTH = 12, OPEN_MODE = 13,
	OPEN_ID = 32, OPEN_FLAGS = 33, OPEN_ROWS = 34, OPEN_COLS = 35, OPEN_ERR_OFFSET = 36, OPEN_SIGNAL = 37, OPEN_KEEP = 38,
	OPEN_RECEIVED = 39, OPEN_PLACE = 40, OPEN_PORT = 14,
};
enum result_key {
	RESULT_ERRNO = 1, RESULT_MESSAGE = 2, RESULT_EXIT_CODE = 3, RESULT_SIGNAL = 4, RESULT_TIMED_OUT = 5,
	RESULT_DURATION_US = 6, RESULT_UTIME_US = 7, RESULT_STIME_US = 8, RESULT_MAXRSS_KB = 9,
	RESULT_BYTES = 10, RESULT_ENTRY = 11, RESULT_RECORD = 32,
	RESULT_MAX_RECORDS = 33, RESULT_MAX_BYTES = 34, RESULT_MAX_AGE_S = 35, RESULT_FORGOTTEN = 36,
	RESULT_TUNNEL = 37,
};
/* How a process is run and watched. */
enum open_flag {
	FLAG_BACKGROUND = 1, /* only noted in the record */
	FLAG_SPOOL = 2, /* keep its output from the first byte on */
	FLAG_FOLLOW = 4, /* a view that ends with the process, not with what is there */
	FLAG_STDOUT = 8, FLAG_STDERR = 16, /* what a view wants */
	FLAG_CLOSE = 32, /* the end of this input is the end of the process's */
	FLAG_READ_ONLY = 64, /* of a volume */
};
enum record_key {
	RECORD_ID = 1, RECORD_PID = 2, RECORD_STARTED_NS = 3, RECORD_FLAGS = 4, RECORD_EXIT_CODE = 5, RECORD_SIGNAL = 6,
	RECORD_DURATION_US = 7, RECORD_UTIME_US = 8, RECORD_STIME_US = 9, RECORD_MAXRSS_KB = 10, RECORD_READ_BLOCKS = 11,
	RECORD_WRITTEN_BLOCKS = 12, RECORD_OUT_BASE = 13, RECORD_OUT_END = 14, RECORD_ERR_BASE = 15, RECORD_ERR_END = 16,
	RECORD_CMD = 17, RECORD_USER = 18, RECORD_TIMEOUT_MS = 19, RECORD_ROWS = 20, RECORD_COLS = 21,
};
enum record_flag {
	STATE_RUNNING = 1, STATE_TIMED_OUT = 2, STATE_CANCELLED = 4, STATE_PTY = 8, STATE_BACKGROUND = 16, STATE_INPUT = 32,
	STATE_INHERITED = 64, STATE_CMD_CUT = 128,
};
enum signal_value { SIGNAL_CANCEL = 0, SIGNAL_LEAVE = 255 };
enum entry_key {
	ENTRY_NAME = 1, ENTRY_TYPE = 2, ENTRY_SIZE = 3, ENTRY_MODE = 4, ENTRY_MTIME = 5, ENTRY_UID = 6, ENTRY_GID = 7,
	ENTRY_MTIME_NS = 8, ENTRY_CTIME_NS = 9, ENTRY_INODE = 10, ENTRY_TARGET = 11, ENTRY_DEVICE = 12,
	ENTRY_BELOW = 14,
};

#endif
