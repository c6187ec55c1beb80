// A loop cut into parts that the calling thread and XLA's thread pool take one after the other.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace geex {

// Calls body(part) for every part of [0, parts); whoever is free takes the next one.
//
// The caller works too and waits only for parts that another thread has begun, so that it cannot
// wait for a pool whose threads all wait likewise. A task that starts late finds nothing left, and
// touches only the counters, which it shares.
template <typename Body>
void ForEachPart(xla::ffi::ThreadPool& pool, int64_t parts, const Body& body) {
  const int64_t threads = std::min<int64_t>(pool.num_threads(), parts);
  if (threads <= 1) {
    for (int64_t part = 0; part < parts; ++part) body(part);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  auto work = [shared, parts, &body] {
    for (;;) {
      const int64_t part = shared->next.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts) return;
      body(part);
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = 1; i < threads; ++i) {
    auto task = work;
    pool.Schedule(std::move(task));
  }
  work();
  for (int spins = 0; shared->done.load(std::memory_order_acquire) < parts; ++spins) {
    if (spins < 4000) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace geex
