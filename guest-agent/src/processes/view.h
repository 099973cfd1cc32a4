/* Views of processes: their output on its way to the host, and input from it. */
#ifndef VIEW_H
#define VIEW_H

#include "processes/process.h"
#include "streams/input.h"
#include "streams/stream.h"

/* Where a view stands in one output of its process. */
struct output_view {
	bool wanted, tell; /* tell: the host has to be told at which offset the next bytes are */
	uint64_t at, stop; /* stop: of a view that does not follow */
};

/* The first member of the state of every stream that is one. */
struct view {
	struct process *process; /* NULL before it runs */
	struct output_view outputs[2];
	bool first; /* the process was started by it: it slows the process down, and cancelling it kills the process */
	bool follow;
	bool closes; /* the end of its input is the end of the process's */
	bool input_ended, input_lost; /* lost: some of it had no reader */
	struct input input;
};

/* The process was started for `request`, and this is its first view. */
void view_begin(struct view *view, struct process *process, const struct request *request);
/* Looks at both outputs from the first byte on until the process ends. */
void view_follow(struct view *view);

/* Operations of such streams. */
void view_data(struct stream *stream, const uint8_t *data, uint32_t length);
void view_end(struct stream *stream);
void view_signal(struct stream *stream, int signal);
void view_resize(struct stream *stream, uint32_t rows, uint32_t cols);
bool view_pump(struct stream *stream);
void view_result(struct stream *stream, struct tlv_writer *writer);
void view_close(struct stream *stream);

/* `attach` looks at a process, `input` feeds it, `signal` signals it. */
extern const struct stream_ops attach_ops, input_ops, signal_ops;

#endif
