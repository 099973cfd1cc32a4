/* Views of processes: their output on its way to the host, and input from it. */
#ifndef VIEW_H
#define VIEW_H

#include "request.h"
#include "stream.h"
#include "tlv.h"

/* The stream's process has just been started for `request`. */
void view_begin(struct stream *stream, const struct request *request);
/* Operations on processes; false when `request` is none of them. */
bool process_operation(struct stream *stream, const struct request *request);
void view_data(struct stream *stream, const uint8_t *data, uint32_t length);
void view_end_input(struct stream *stream);
void view_signal(struct stream *stream, int signal);
/* Moves what can be moved; true when something was. */
bool view_pump(struct stream *stream);
bool records_pump(struct stream *stream);
void view_close(struct stream *stream);
void view_result(struct tlv_writer *writer, const struct stream *stream);
void records_result(struct tlv_writer *writer);

#endif
