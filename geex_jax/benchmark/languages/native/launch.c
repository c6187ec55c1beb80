/* A fork server that starts other programs: a small process forks much cheaper than Python.
 *
 * A request's payload: folder, number that the further descriptor gets, number of arguments,
 * arguments, environment; each ends with a NUL.
 */
#include "zygote.h"

int main(void) {
  char *payload, *at, *words[512];
  size_t length;
  int fds[ZYGOTE_MAX_FDS], count, size = 0;
  if (zygote_serve(&payload, &length, fds, &count)) return 1;
  at = payload;
  if (chdir(at)) zygote_die("chdir");
  at += strlen(at) + 1;
  int number = atoi(at);
  at += strlen(at) + 1;
  int arguments = atoi(at);
  at += strlen(at) + 1;
  char **environment = words;
  while (at < payload + length && size < 510) {
    if (size == arguments && environment == words) {
      words[size++] = NULL;
      environment = words + size;
    }
    words[size++] = at;
    at += strlen(at) + 1;
  }
  words[size] = NULL;
  if (environment == words) environment = words + size;
  if (count > 0 && fds[0] != number) {
    if (dup2(fds[0], number) < 0) zygote_die("dup2");
    close(fds[0]);
  }
  execve(words[0], words, environment);
  zygote_die(words[0]);
  return 127;
}
