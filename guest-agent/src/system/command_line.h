/* The kernel's command line. */
#ifndef COMMAND_LINE_H
#define COMMAND_LINE_H

/* The value of `name`, "" when it is not there. */
const char *command_line(const char *name);

#endif
