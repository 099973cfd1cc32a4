/* Where the kernel keeps the boot id. */
#ifndef BOOT_ID_H
#define BOOT_ID_H

#include <stdint.h>

/* The place of its 16 bytes in the memory of the machine; 0 if that is not known. */
uint64_t boot_id_place(void);

#endif
