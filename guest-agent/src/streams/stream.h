/*
 * The table of open streams: what the host looks at or works on now. A kind of stream is a table of operations and a state
 * of its own; it is one file, and one row in dispatch.c.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "channel/request.h"
#include "channel/tlv.h"
#include "clock.h"

enum { STREAMS = 512, DATA_CHUNK = 32 * 1024, CREDIT_BATCH = 64 * 1024 };

struct stream;

/* What a kind of stream does; NULL: nothing. Only `result` and `close` are called once the stream is finished. */
struct stream_ops {
	const char *name; /* the operation of the OPEN */
	size_t state_size;
	void (*open)(struct stream *stream, const struct request *request);
	void (*data)(struct stream *stream, const uint8_t *data, uint32_t length);
	/* The host sends no more data. */
	void (*end)(struct stream *stream);
	/* NULL: SIGNAL_CANCEL finishes the stream. */
	void (*signal)(struct stream *stream, int signal);
	void (*resize)(struct stream *stream, uint32_t rows, uint32_t cols);
	/* The host gave credit, which has been added already. */
	void (*credit)(struct stream *stream, uint32_t bytes);
	/* Moves what can be moved; true when something was. */
	bool (*pump)(struct stream *stream);
	/* The stream's child ended. */
	void (*reaped)(struct stream *stream, int status);
	/* Writes the RESULT of a success. NULL: the bytes moved. */
	void (*result)(struct stream *stream, struct tlv_writer *writer);
	/* Frees what the state holds; what runs in the guest keeps running. */
	void (*close)(struct stream *stream);
};

struct stream {
	const struct stream_ops *ops; /* NULL: a free place in the table */
	void *state; /* of the kind; zeroed at first */
	uint32_t id;
	uint32_t credit; /* bytes that the host lets us send */
	uint32_t owed; /* bytes consumed that the host was not told about */
	uint64_t bytes; /* moved so far */
	pid_t child; /* that works for this stream alone; 0: none */
	bool finished;
	int error; /* errno that the RESULT will carry */
	const char *what; /* what failed: a string that outlives the stream */
};

struct stream *stream_find(uint32_t id);
/* Opens a stream of a kind; every failure is its RESULT. */
void stream_open(uint32_t id, const struct stream_ops *ops, const struct request *request);
/* Opens a stream that only ends with an error. */
void stream_refuse(uint32_t id, int error, const char *what);
void stream_data(struct stream *stream, const uint8_t *data, uint32_t length);
void stream_end(struct stream *stream);
void stream_signal(struct stream *stream, int signal);
void stream_resize(struct stream *stream, uint32_t rows, uint32_t cols);
void stream_credit(struct stream *stream, uint32_t bytes);

/* The stream has nothing more to do: its RESULT goes out with the next pump. */
void stream_finish(struct stream *stream, int error, const char *what);
/* Tells the host that `bytes` of its input were consumed, in batches; with stream_acknowledge at once. */
void stream_consumed(struct stream *stream, uint32_t bytes);
void stream_acknowledge(struct stream *stream);
/* Room for up to `size` bytes of data that the host lets us send now, or NULL; *room is how many. */
uint8_t *stream_room(struct stream *stream, size_t size, size_t *room);
/* Sends the first `length` bytes of that room as a frame of this type. */
void stream_send(struct stream *stream, uint8_t type, size_t length);

bool streams_pump(void);
/* Whether the child was some stream's. */
bool streams_reaped(pid_t pid, int status);
/* Frees all streams; what runs in the guest keeps running. */
void streams_forget(void);

#endif
