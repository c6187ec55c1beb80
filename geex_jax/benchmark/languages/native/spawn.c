/* Starts a child of the supervisor, ready for a program that nobody trusts: what sandbox/child.py
 * does in Python, for a tenth of the time, since a fork of a Python process pays for every page
 * that it touches. Built on the user's machine where there is a C compiler. */
#include "zygote.h"

/* With a path: execs it; the parent's memory is not copied at all (vfork). Without: forks, and
 * returns 0 in the child. Returns the child's id, or -1. */
int geex_spawn(struct zygote_request *request, unsigned char *filter, const int *there,
               const int *here, int count, const char *cwd, const char *path, char *const *argv,
               char *const *environment) {
  pid_t pid = path ? vfork() : fork();
  if (pid != 0) return pid;
  setsid();
  zygote_place(there, here, count);
  zygote_enter(request, filter);
  if (chdir(cwd)) zygote_die("chdir");
  if (!path) return 0;
  execve(path, argv, environment);
  zygote_die(path);
  return -1;
}
