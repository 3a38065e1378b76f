// Stacks that take turns on one thread of the machine.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define OPSIN_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OPSIN_FIBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define OPSIN_FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define OPSIN_FIBER_TSAN 1
#endif
#endif

#if !defined(__x86_64__) && !defined(OPSIN_FIBER_UCONTEXT)
#define OPSIN_FIBER_UCONTEXT 1
#endif

#if defined(OPSIN_FIBER_UCONTEXT)
#include <ucontext.h>
#endif

namespace opsin::cuda::emulated {

class Fiber {
 public:
  /// The code that runs now, on the stack that it has.
  Fiber() = default;
  /// A new stack; `entry`, which never returns, starts there on the first switch. Fibers with different
  /// numbers begin at different offsets of their stacks, which would else compete for the same lines of the
  /// cache.
  Fiber(void (*entry)(), std::size_t number);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Stops this fiber, the one that runs, and goes on with `next`; returns when a fiber switches back.
  void switch_to(Fiber& next);

  /// Forgets where this fiber stopped: it begins again. What is on its stack is not destroyed.
  void restart();

 private:
  void begin();

  void (*entry_)() = nullptr;
  std::byte* stack_ = nullptr;
  std::size_t offset_ = 0;
#if defined(OPSIN_FIBER_UCONTEXT)
  ucontext_t state_;
#else
  void* stack_pointer_ = nullptr;
#endif
#if defined(OPSIN_FIBER_ASAN)
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
#elif defined(OPSIN_FIBER_TSAN)
  void* handle_ = nullptr;
#endif
};

}  // namespace opsin::cuda::emulated
