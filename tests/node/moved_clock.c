/* Preloaded into a process, it moves that process's wall clock by CLOCK_OFFSET_SECONDS and leaves all others alone.

   A process asks the time of functions that the kernel maps into it (the vDSO); the C library, Rust and Go call them directly. So a jump is written over
   each of those that tell the wall clock, in this process's own copy of the page. Clocks that only measure are as they were, and so is a file's time, which
   the kernel writes. What it cannot do ends the process: a test shall not pass for a clock that was right. */
#define _GNU_SOURCE
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#ifndef __x86_64__
#error "the jump is one of x86-64"
#endif

static long offset_seconds;

static long ask_kernel(long number, long first, long second) {
  long code;
  __asm__ volatile("syscall" : "=a"(code) : "a"(number), "D"(first), "S"(second) : "rcx", "r11", "memory");
  return code;
}

static long moved_clock_gettime(clockid_t clock, struct timespec *at) {
  long code = ask_kernel(SYS_clock_gettime, clock, (long)at);
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += offset_seconds;
  return code;
}

/* Both by the one call above: a seccomp profile need not know theirs. */
static long moved_gettimeofday(struct timeval *at, struct timezone *zone) {
  struct timespec now;
  long code = moved_clock_gettime(CLOCK_REALTIME, &now);
  if (code == 0 && at) *at = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  if (code == 0 && zone) *zone = (struct timezone){0};
  return code;
}

static long moved_time(time_t *at) {
  struct timespec now;
  long code = moved_clock_gettime(CLOCK_REALTIME, &now);
  if (code) return code;
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

static const struct {
  const char *name;
  void *instead;
} moved[] = {
    {"__vdso_clock_gettime", moved_clock_gettime},
    {"__vdso_gettimeofday", moved_gettimeofday},
    {"__vdso_time", moved_time},
};

static void give_up(const char *why) {
  fprintf(stderr, "the clock cannot be moved: %s\n", why);
  abort();
}

__attribute__((constructor)) static void move_clock(void) {
  const char *text = getenv("CLOCK_OFFSET_SECONDS");
  if (!text) return;
  offset_seconds = atol(text);
  char *base = (char *)getauxval(AT_SYSINFO_EHDR);
  if (!base) give_up("no vDSO");
  const Elf64_Ehdr *head = (const Elf64_Ehdr *)base;
  const Elf64_Phdr *parts = (const Elf64_Phdr *)(base + head->e_phoff);
  const Elf64_Shdr *sections = (const Elf64_Shdr *)(base + head->e_shoff);
  size_t size = 0;
  for (int i = 0; i < head->e_phnum; i++)
    if (parts[i].p_type == PT_LOAD && parts[i].p_offset + parts[i].p_memsz > size) size = parts[i].p_offset + parts[i].p_memsz;
  if (mprotect(base, size, PROT_READ | PROT_WRITE | PROT_EXEC)) give_up("its page cannot be written");
  size_t done = 0;
  for (int i = 0; i < head->e_shnum; i++) {
    if (sections[i].sh_type != SHT_DYNSYM) continue;
    const Elf64_Sym *symbols = (const Elf64_Sym *)(base + sections[i].sh_offset);
    const char *names = base + sections[sections[i].sh_link].sh_offset;
    for (size_t n = 0; n < sections[i].sh_size / sizeof *symbols; n++)
      for (size_t m = 0; m < sizeof moved / sizeof *moved; m++)
        if (!strcmp(names + symbols[n].st_name, moved[m].name)) {
          unsigned char jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov rax, to; jmp rax */
          memcpy(jump + 2, &moved[m].instead, sizeof moved[m].instead);
          memcpy(base + symbols[n].st_value, jump, sizeof jump);
          done++;
        }
  }
  if (done != sizeof moved / sizeof *moved) give_up("its functions are called otherwise");
  if (mprotect(base, size, PROT_READ | PROT_EXEC)) give_up("its page stays writable");
}
