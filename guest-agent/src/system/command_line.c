#include "system/command_line.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

const char *command_line(const char *name)
{
	static char text[4097], value[256];
	size_t length = strlen(name);
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);

	if (fd >= 0)
		close(fd);
	text[size > 0 ? size : 0] = 0;
	value[0] = 0;
	for (char *word = strtok(text, " \n"); word; word = strtok(NULL, " \n"))
		if (!strncmp(word, name, length) && word[length] == '=')
			strncpy(value, word + length + 1, sizeof value - 1);
	return value;
}
