/* The table of open streams: what the host looks at or works on now. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto.h"
#include "tlv.h"

enum { STREAMS = 128, DATA_CHUNK = 32 * 1024, CREDIT_BATCH = 64 * 1024 };

enum stream_kind {
	S_FREE,
	S_SCRIPT, /* an exec whose command still arrives as data */
	S_EXEC, /* the first view of a process: it slows the process down, and takes it along when it is cancelled */
	S_VIEW, /* any other view */
	S_JOB, /* a child of ours that works on files and exits with an errno */
	S_READ,
	S_WRITE,
	S_LIST,
	S_CHANGES,
	S_RECORDS,
	S_SOCKET,
};

struct walk;
struct process;

/* Where a view stands in one output of its process. */
struct view {
	bool wanted, tell; /* the host has to be told at which offset the next bytes are */
	uint64_t at, stop; /* stop: of a view that does not follow */
};

/* One direction of a connection. */
struct socket_end {
	int fd; /* -1 when closed */
	bool ready; /* edge triggered: false after EAGAIN */
};

struct stream {
	enum stream_kind kind;
	uint32_t id;
	uint32_t credit; /* bytes that the host lets us send */
	uint32_t owed; /* bytes consumed that the host was not told about */
	struct process *process; /* of a view */
	const struct process *only; /* of a list of records: the one that was asked for */
	struct view views[2];
	bool follow, detached; /* detached: only starts the process */
	bool closes; /* the end of its input is the end of the process's */
	uint8_t *input; /* ring of WINDOW bytes, made on first use */
	uint32_t input_start, input_length;
	bool input_ended;
	pid_t pid; /* of a job */
	struct socket_end socket[2]; /* of an S_SOCKET: out of the guest, and into it */
	bool cancelled, finished;
	uint64_t opened_ns;
	int file; /* -1 when closed */
	char *target, *temporary; /* of a write: what to replace, and with what; the latter goes with the stream */
	uint64_t bytes; /* moved so far */
	uint64_t remaining; /* of a read; of a list of records the next one */
	struct walk *walk; /* of an S_CHANGES */
	uint8_t *request; /* of an S_SCRIPT: the OPEN, kept until the command is complete */
	uint32_t request_length;
	uint64_t script_left;
	int error; /* errno that the RESULT will carry */
	const char *what; /* what failed: a string that outlives the stream */
};

extern struct stream streams[STREAMS];

uint64_t now_ns(void);
struct stream *stream_find(uint32_t id);
/* A new stream, or NULL when the table is full. */
struct stream *stream_new(uint32_t id);
/* Frees everything the stream holds; a process goes on. */
void stream_forget(struct stream *stream);
/* The stream has nothing more to do: its RESULT goes out with the next pump. */
void stream_finish(struct stream *stream, int error, const char *what);
/* Sends the RESULT of a finished stream and frees it; false when there is no room yet. */
bool stream_result(struct stream *stream);
/* An answer to an OPEN that got no stream. */
void send_error(uint32_t id, int error, const char *what);
/* Tells the host that `bytes` of its input were consumed, in batches. */
void stream_consumed(struct stream *stream, uint32_t bytes);

#endif
