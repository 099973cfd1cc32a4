/*
 * The kernel is mapped as it lies in the memory (Linux, Documentation/arch/x86/x86_64/mm.rst): its symbols are as far from
 * its beginning as the places that they stand for.
 */
#include "system/boot_id.h"

#include <stdio.h>
#include <string.h>

static uint64_t begin_of_code(void)
{
	FILE *file = fopen("/proc/iomem", "re");
	unsigned long long begin = 0;
	char line[256];

	while (file && !begin && fgets(line, sizeof line, file))
		if (strstr(line, " : Kernel code"))
			sscanf(line, "%llx", &begin);
	if (file)
		fclose(file);
	return begin;
}

uint64_t boot_id_place(void)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	unsigned long long address, text = 0, id = 0;
	uint64_t begin = begin_of_code();
	char line[256], name[64];

	while (file && !(text && id) && fgets(line, sizeof line, file)) {
		if (sscanf(line, "%llx %*c %63s", &address, name) != 2)
			continue;
		if (!strcmp(name, "_text"))
			text = address;
		else if (!strcmp(name, "sysctl_bootid"))
			id = address;
	}
	if (file)
		fclose(file);
	return begin && text && id ? begin + id - text : 0;
}
