/* Records of processes as the host gets them. */
#ifndef RECORDS_H
#define RECORDS_H

#include "channel/tlv.h"
#include "processes/process.h"
#include "streams/stream.h"

/* A RESULT_RECORD with the record as its list. */
void put_record_item(struct tlv_writer *writer, const struct process *process);
/* How an ended process ended. */
void put_exit(struct tlv_writer *writer, const struct process *process);

extern const struct stream_ops processes_ops;

#endif
