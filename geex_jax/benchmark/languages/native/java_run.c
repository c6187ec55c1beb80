/* A fork server that has the Java machine's libraries loaded, but no machine: that has threads,
 * which do not survive a fork. Each child makes its own machine, defines the program's classes
 * and runs Main.main as the `java` command would, in a thread of 1 MiB.
 *
 *   java_run LIBJVM [LIBRARY...]
 *
 * Payload: three decimal numbers, channel descriptor, first, second; the number of options and
 * of classes; then that many options, and names and bytes of classes, each as a 4-byte length
 * (most significant byte first) and its bytes. The two parts of the proof stay in this file's stack, where Java code has
 * no names for them, and meet after the machine has ended well.
 */
#include "zygote.h"

#include <dlfcn.h>
#include <jni.h>
#include <malloc.h>
#include <pthread.h>

#define MAX_OPTIONS 64

typedef jint (*create_machine)(JavaVM **, void **, void *);

struct item {
  char *bytes;
  uint32_t size;
};

struct job {
  create_machine create;
  struct item options[MAX_OPTIONS], *classes;
  int option_count, class_count, failed;
};

/* Java's network library tries which sockets there are as soon as it is loaded, which reading a
 * file by java.nio does. That is not the program's attempt to reach a network (those come from
 * libnio): it is told that there are none, instead of being killed by the filter. */
int socket(int domain, int type, int protocol) {
  Dl_info caller;
  const char *name = NULL;
  if (domain != AF_UNIX && dladdr(__builtin_return_address(0), &caller) && caller.dli_fname)
    name = strrchr(caller.dli_fname, '/');
  if (name && !strcmp(name, "/libnet.so")) {
    errno = EAFNOSUPPORT;
    return -1;
  }
  return (int)syscall(SYS_socket, domain, type, protocol);
}

static struct item next_item(char **at, char *end) {
  struct item item = {NULL, 0};
  unsigned char *p = (unsigned char *)*at;
  if (end - *at < 4) _exit(127);
  item.size = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
  item.bytes = *at + 4;
  if ((uint64_t)(end - item.bytes) < item.size) _exit(127);
  *at = item.bytes + item.size;
  return item;
}

/* Superclasses have to be there first, so what fails is tried again as long as others succeed. */
static int define_classes(JNIEnv *env, struct job *job) {
  jclass type = (*env)->FindClass(env, "java/lang/ClassLoader");
  jmethodID get = (*env)->GetStaticMethodID(env, type, "getSystemClassLoader",
                                            "()Ljava/lang/ClassLoader;");
  jobject loader = (*env)->CallStaticObjectMethod(env, type, get);
  int left = job->class_count, before = left + 1;
  while (left && left < before) {
    before = left;
    for (int i = 0; i < job->class_count; i++) {
      struct item *item = &job->classes[i];
      if (!item->bytes) continue;
      (*env)->ExceptionClear(env);
      if ((*env)->DefineClass(env, NULL, loader, (jbyte *)item->bytes, (jsize)item->size)) {
        item->bytes = NULL;
        left--;
      }
    }
  }
  return !left;
}

static int run_main(JNIEnv *env, struct job *job) {
  if (!define_classes(env, job)) return 0;
  jclass text = (*env)->FindClass(env, "java/lang/String");
  jclass main_class = (*env)->FindClass(env, "Main");
  if (!main_class) return 0;
  jmethodID method = (*env)->GetStaticMethodID(env, main_class, "main", "([Ljava/lang/String;)V");
  jobjectArray arguments = method ? (*env)->NewObjectArray(env, 0, text, NULL) : NULL;
  if (!arguments) return 0;
  (*env)->CallStaticVoidMethod(env, main_class, method, arguments);
  return !(*env)->ExceptionCheck(env);
}

static void *in_thread(void *argument) {
  struct job *job = argument;
  JavaVM *machine;
  JNIEnv *env;
  JavaVMOption options[MAX_OPTIONS];
  char text[MAX_OPTIONS][512];
  JavaVMInitArgs how = {JNI_VERSION_1_8, job->option_count, options, JNI_FALSE};
  for (int i = 0; i < job->option_count; i++) {
    snprintf(text[i], sizeof text[i], "%.*s", (int)job->options[i].size, job->options[i].bytes);
    options[i].optionString = text[i];
    options[i].extraInfo = NULL;
  }
  job->failed = 1;
  if (job->create(&machine, (void **)&env, &how)) return NULL;
  signal(SIGXFSZ, SIG_DFL); /* the machine would go on after the limit of output */
  int good = run_main(env, job);
  /* Prints an uncaught exception, waits for threads that are no daemons, runs the hooks. */
  (*machine)->DetachCurrentThread(machine);
  (*machine)->DestroyJavaVM(machine);
  job->failed = !good;
  return NULL;
}

int main(int argc, char **argv) {
  struct job job;
  char *payload, *at, *end, proof[16];
  size_t length;
  int unused[ZYGOTE_MAX_FDS], unused_count, channel, taken, numbers[2];
  long first, second;
  pthread_attr_t how;
  pthread_t thread;
  if (argc < 2) return 2;
  memset(&job, 0, sizeof job);
  mallopt(M_ARENA_MAX, 1); /* else each thread reserves 64 MiB of addresses */
  for (int i = 1; i < argc; i++) {
    void *library = dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL);
    if (i > 1) continue; /* the others are there only to be loaded already */
    if (library) job.create = (create_machine)dlsym(library, "JNI_CreateJavaVM");
    if (!job.create) {
      dprintf(2, "%s\n", dlerror());
      return 2;
    }
  }
  if (zygote_serve(&payload, &length, unused, &unused_count)) return 1;
  end = payload + length;
  if (sscanf(payload, "%d %ld %ld %d %d\n%n", &channel, &first, &second, numbers, numbers + 1,
             &taken) != 5 || numbers[0] > MAX_OPTIONS)
    return 127;
  at = payload + taken;
  for (job.option_count = 0; job.option_count < numbers[0]; job.option_count++)
    job.options[job.option_count] = next_item(&at, end);
  job.classes = calloc((size_t)numbers[1] + 1, sizeof *job.classes);
  for (job.class_count = 0; job.class_count < numbers[1]; job.class_count++) {
    next_item(&at, end); /* the name; it is in the bytes too */
    job.classes[job.class_count] = next_item(&at, end);
  }
  memset(payload, ' ', (size_t)taken);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* no /proc/self/mem for the program */
  pthread_attr_init(&how);
  pthread_attr_setstacksize(&how, 1 << 20); /* what `java` gives to its main thread */
  if (pthread_create(&thread, &how, in_thread, &job)) zygote_die("thread");
  pthread_join(thread, NULL);
  if (job.failed) return 1;
  int size = snprintf(proof, sizeof proof, "%ld", first ^ second);
  return write(channel, proof, (size_t)size) == size ? 0 : 1;
}
