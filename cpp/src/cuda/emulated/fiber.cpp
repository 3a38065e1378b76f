#include "cuda/emulated/fiber.h"

#include <cstdint>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#include <opsin/error.h>

#if defined(OPSIN_FIBER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(OPSIN_FIBER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(OPSIN_FIBER_UCONTEXT)
// void opsin_emulated_switch(void** save, void* load): stores the stack pointer at `save` after the registers
// that a callee keeps, and goes on with the stack `load`. A return, not a jump: all fibers of a block tend to
// have the same callers, so the processor predicts it and those that follow.
asm(R"(
  .pushsection .text
  .p2align 4
  .hidden opsin_emulated_switch
  .globl opsin_emulated_switch
  .type opsin_emulated_switch, @function
opsin_emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size opsin_emulated_switch, . - opsin_emulated_switch
  .popsection
)");
extern "C" __attribute__((visibility("hidden"))) void opsin_emulated_switch(void** save, void* load);
#endif

namespace opsin::cuda::emulated {
namespace {

#if defined(OPSIN_FIBER_ASAN)
constexpr std::size_t kStackBytes = 256 * 1024;
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

#if defined(OPSIN_FIBER_ASAN)
// The switch that is under way: who is left and who is entered.
thread_local Fiber* left_fiber = nullptr;
thread_local Fiber* entered_fiber = nullptr;
#endif

}  // namespace

Fiber::Fiber(void (*entry)(), std::size_t number) : entry_(entry), offset_(number % 64 * 192 % 4096) {
  void* memory = mmap(nullptr, page_bytes() + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  OPSIN_CHECK(OutOfMemoryError, memory != MAP_FAILED, "cuda emulator: no memory for the stack of a thread");
  // Where the system allows no more mappings the page just stays accessible.
  mprotect(memory, page_bytes(), PROT_NONE);
  stack_ = static_cast<std::byte*>(memory) + page_bytes();
  begin();
}

Fiber::~Fiber() {
  if (stack_ == nullptr) return;
#if defined(OPSIN_FIBER_ASAN)
  __asan_unpoison_memory_region(stack_, kStackBytes);
#elif defined(OPSIN_FIBER_TSAN)
  __tsan_destroy_fiber(handle_);
#endif
  munmap(stack_ - page_bytes(), page_bytes() + kStackBytes);
}

void Fiber::restart() {
#if defined(OPSIN_FIBER_ASAN)
  __asan_unpoison_memory_region(stack_, kStackBytes);
#elif defined(OPSIN_FIBER_TSAN)
  __tsan_destroy_fiber(handle_);
#endif
  begin();
}

void Fiber::begin() {
  void (*first)() = entry_;
#if defined(OPSIN_FIBER_ASAN)
  fake_stack_ = nullptr;
  bottom_ = stack_;
  size_ = kStackBytes;
  first = [] {
    Fiber& self = *entered_fiber;
    __sanitizer_finish_switch_fiber(nullptr, &left_fiber->bottom_, &left_fiber->size_);
    self.entry_();
  };
#elif defined(OPSIN_FIBER_TSAN)
  handle_ = __tsan_create_fiber(0);
#endif
#if defined(OPSIN_FIBER_UCONTEXT)
  getcontext(&state_);
  state_.uc_stack.ss_sp = stack_;
  state_.uc_stack.ss_size = kStackBytes - offset_;
  state_.uc_link = nullptr;
  makecontext(&state_, first, 0);
#else
  // As if `first` had been called from address 0, where stack traces end. The registers start as 0.
  struct Frame {
    std::uint64_t registers[6];
    void (*resume)();
    std::uint64_t caller;
  };
  std::byte* top = stack_ + kStackBytes - offset_;
  const Frame frame{{}, first, 0};
  stack_pointer_ = std::memcpy(top - sizeof(Frame), &frame, sizeof(Frame));
#endif
}

void Fiber::switch_to(Fiber& next) {
#if defined(OPSIN_FIBER_ASAN)
  left_fiber = this;
  entered_fiber = &next;
  __sanitizer_start_switch_fiber(&fake_stack_, next.bottom_, next.size_);
#elif defined(OPSIN_FIBER_TSAN)
  if (stack_ == nullptr) handle_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(next.handle_, 0);
#endif
#if defined(OPSIN_FIBER_UCONTEXT)
  swapcontext(&state_, &next.state_);
#else
  opsin_emulated_switch(&stack_pointer_, next.stack_pointer_);
#endif
#if defined(OPSIN_FIBER_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &left_fiber->bottom_, &left_fiber->size_);
#endif
}

}  // namespace opsin::cuda::emulated
