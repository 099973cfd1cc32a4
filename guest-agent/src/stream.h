/* The table of open streams. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "proto.h"
#include "tlv.h"

enum { STREAMS = 128, DATA_CHUNK = 32 * 1024, CREDIT_BATCH = 64 * 1024 };

enum stream_kind {
	S_FREE,
	S_SCRIPT, /* an exec whose command still arrives as data */
	S_EXEC,
	S_JOB, /* a child of ours that works on files and exits with an errno */
	S_READ,
	S_WRITE,
	S_LIST,
	S_SOCKET,
};

struct pipe_end {
	int fd; /* -1 when closed */
	bool ready; /* edge triggered: false after EAGAIN */
	int64_t left; /* bytes still to be sent once the process has ended, -1 before */
};

struct stream {
	enum stream_kind kind;
	uint32_t id;
	uint32_t credit; /* bytes that the host lets us send */
	uint32_t owed; /* bytes consumed that the host was not told about */
	struct pipe_end out, err;
	struct pipe_end in;
	uint8_t *input; /* ring of WINDOW bytes, made on first use */
	uint32_t input_start, input_length;
	bool input_ended;
	pid_t pid;
	bool exited, timed_out, cancelled, finished;
	int status;
	uint64_t opened_ns, duration_ns;
	uint64_t deadline_ns; /* 0: none */
	struct rusage usage;
	int file; /* -1 when closed */
	char *target, *temporary; /* of a write: what to replace, and with what; the latter goes with the stream */
	uint64_t bytes; /* moved so far */
	uint64_t remaining; /* of a read */
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
/* Frees everything the stream holds; pipes of a process go on being drained. */
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
