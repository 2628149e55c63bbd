/* The first process of every pod on the test's node: it holds the pod's namespaces until it is told to end. It does nothing else. */
#include <signal.h>
#include <unistd.h>

static void end(int number) {
  (void)number;
  _exit(0);
}

int main(void) {
  /* Process 1 of a namespace is spared by signals that it does not handle; children that end are reaped by the kernel. */
  signal(SIGCHLD, SIG_IGN);
  signal(SIGTERM, end);
  signal(SIGINT, end);
  for (;;) pause();
}
