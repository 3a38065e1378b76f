#include "core/tail.h"

#include <condition_variable>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "core/backend.h"
#include "core/profiler.h"
#include "cpu/allocator.h"
#include "cpu/packed_cache.h"

namespace opsin {

struct Pending {
  Tail tail;
  Storage* storage = nullptr;
  void* stream = nullptr;  ///< Where it is to be computed.
  bool captured = false;
  bool again = false;    ///< It was computed and given up once.
  bool running = false;  ///< A thread computes it without the mutex: only that may change or drop it.
  uint32_t version = 0;  ///< Of the storage, if repeatable: its elements are those of the tail until a write.
  uint32_t base_version = 0;  ///< Likewise of the base.
  Pending* next = nullptr;
  Pending* previous = nullptr;
};

namespace {

/// Whether this thread holds the mutex: tensors may die while a tail is computed.
[[gnu::tls_model("initial-exec")]] constinit thread_local bool has_lock = false;

/// All that is pending, a short list: most is computed or dropped soon.
Pending* first = nullptr;

std::mutex& mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

std::condition_variable& finished() {
  static std::condition_variable* finished = new std::condition_variable;
  return *finished;
}

/// Calls f(storage) for what the elements will be computed from.
template <class F>
void for_sources(const Tail& tail, F f) {
  for (const Tensor* source : {&tail.base, &tail.other, &tail.numbers}) {
    if (source->defined()) f(*source->impl()->storage);
  }
}

bool awaits(const Pending& pending, const Storage& storage) {
  bool found = false;
  for_sources(pending.tail, [&](const Storage& source) { found |= &source == &storage; });
  return found;
}

/// Makes `stream` the one that this thread's work on `device` goes to.
class StreamScope {
 public:
  StreamScope(Device device, void* stream)
      : device_(device), active_(active_device()), before_(device.is_cpu() ? nullptr : current(device)) {
    if (!device.is_cpu() && before_ != stream) backend(device).set_current_stream(device.index, stream);
  }
  ~StreamScope() {
    if (!device_.is_cpu()) backend(device_).set_current_stream(device_.index, before_);
    active_device() = active_;
  }
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

  static void* current(Device device) { return backend(device).current_stream(device.index); }

 private:
  Device device_;
  int active_;
  void* before_;
};

template <class Wanted>
Pending* find(Wanted wanted) {
  Pending* pending = first;
  while (pending && !wanted(*pending)) pending = pending->next;
  return pending;
}

/// Whether `x` is all elements of its storage, in their order.
bool is_whole(const TensorImpl& x, const Tail& tail) {
  return x.contiguous && x.dtype == tail.base.dtype() &&
         static_cast<size_t>(x.numel) * item_size(x.dtype) == x.storage->bytes;
}

/// Whether nobody will read the base again: its memory is in the caches, and that of the result is not. On a
/// GPU a block belongs to the stream that it was allocated on.
bool has_free_base(const Pending& pending) {
  const TensorImpl& base = *pending.tail.base.impl();
  return pending.storage->device.is_cpu() && base.use_count() == 1 && base.storage->use_count() == 1 &&
         base.storage->bytes == pending.storage->bytes;
}

/// Tails don't nest, but for the mask of a gradient, which often nobody reads.
void settle_sources(const Tail& tail) {
  if (tail.kind != Tail::Kind::kNormalised || !Tails::peek(tail.base, Tail::Kind::kConvolved)) {
    (void)tail.base.impl()->physical_data();
  }
  if (tail.other.defined() && tail.kind != Tail::Kind::kMasked) (void)tail.other.impl()->physical_data();
}

/// Whether the elements may be given up: a sum would keep the memory of its other part.
bool may_repeat(const Pending& pending) {
  return pending.storage->device.is_cpu() && pending.tail.kind == Tail::Kind::kNormalised &&
         !pending.tail.other.defined();
}

}  // namespace

Storage::Storage() = default;
Storage::~Storage() = default;

Tails::Lock::Lock() : lock_(mutex()) { has_lock = true; }
Tails::Lock::~Lock() { has_lock = false; }

template <class F>
void Tails::Lock::without(F f) {
  struct Back {
    explicit Back(Lock& of) : lock(of) {
      has_lock = false;
      lock.lock_.unlock();
    }
    ~Back() {
      lock.lock_.lock();
      has_lock = true;
    }
    Lock& lock;
  };
  const Back back(*this);
  f();
}

bool Tails::are_on() {
  static const bool on = [] {
    const char* text = std::getenv("OPSIN_FUSE");
    return !text || std::string_view(text) != "0";
  }();
  return on;
}

bool Tails::can_wait(const Tail& tail) {
  const TensorImpl& base = *tail.base.impl();
  const bool convolved = tail.kind == Tail::Kind::kConvolved;
  for (const Tensor* source : {&tail.base, &tail.other, &tail.numbers}) {
    if (!source->defined()) continue;
    const TensorImpl& impl = *source->impl();
    if (impl.storage->escaped) return false;
    if (source == &tail.numbers) continue;
    if (!impl.contiguous || (!convolved && impl.is_hidden() != base.is_hidden())) return false;
  }
  return true;
}

Tensor Tails::leave(const Tail& tail, const Tensor& like) {
  return leave(tail, like.sizes(), tail.base.impl()->is_hidden());
}

Tensor Tails::leave(const Tail& tail, const Dims& sizes, bool hidden) {
  if (!are_on()) return {};
  settle_sources(tail);
  const Device device = tail.base.device();
  const DType dtype = tail.base.dtype();
  auto pending = std::make_unique<Pending>();
  if (!device.is_cpu()) {
    pending->stream = StreamScope::current(device);
    pending->captured = backend(device).is_capturing();
  }
  pending->tail = tail;
  const Lock lock;
  if (!can_wait(tail)) return {};
  const size_t bytes = static_cast<size_t>(count_elements(sizes)) * item_size(dtype);
  Ref<Storage> storage = Storage::reserve(bytes, device);
  storage->state.store(hidden ? Storage::kHidden | Storage::kPending : Storage::kPending,
                       std::memory_order_relaxed);
  link(*storage, std::move(pending));
  return Tensor(make_ref<TensorImpl>(std::move(storage), dtype, sizes, contiguous_strides(sizes), 0));
}

std::optional<Tail> Tails::peek(const Tensor& x, Tail::Kind kind) {
  if (!is_pending(x)) return {};
  const Device device = x.device();
  void* const stream = device.is_cpu() ? nullptr : StreamScope::current(device);
  const Lock lock;
  const Pending* const pending = x.impl()->storage->pending_;
  if (!pending || pending->running || pending->tail.kind != kind || pending->stream != stream ||
      !is_whole(*x.impl(), pending->tail)) {
    return {};
  }
  return pending->tail;
}

bool Tails::replace(const Tensor& x, const Tail& tail) {
  settle_sources(tail);
  Lock lock;
  Storage& storage = *x.impl()->storage;
  if (!storage.pending_ || storage.pending_->running || !can_wait(tail)) return false;
  auto changed = std::make_unique<Pending>();
  changed->stream = storage.pending_->stream;
  changed->captured = storage.pending_->captured;
  changed->tail = tail;
  lock.dropped_.push_back(unlink(*storage.pending_));
  link(storage, std::move(changed));
  return true;
}

void Tails::set_origin(const Tensor& y, const Tensor& numbers, uint32_t version) {
  Storage& storage = *y.impl()->storage;
  storage.origin_ = numbers.defined() ? numbers.impl()->storage : Ref<Storage>();
  storage.origin_version_ = version;
}

bool Tails::has_origin(const Tensor& y, const Tensor& numbers) {
  const Storage& storage = *y.impl()->storage;
  return storage.origin_ && storage.origin_ == numbers.impl()->storage && !storage.escaped &&
         storage.origin_version_ == y.version();
}

void Tails::tell_normalised(const Tensor& y) {
  const Ref<Storage>& origin = y.impl()->storage->origin_;
  cpu::PackedCache* const cache = origin ? origin->packed_.load(std::memory_order_acquire) : nullptr;
  if (cache) cache->normalised = true;
}

void Tails::link(Storage& storage, std::unique_ptr<Pending> pending) {
  Pending* const added = pending.release();
  added->storage = &storage;
  storage.pending_ = added;
  added->next = first;
  added->previous = nullptr;
  if (first) first->previous = added;
  first = added;
  for_sources(added->tail, [](Storage& awaited) {
    if (awaited.awaiting_++ == 0) awaited.state.fetch_or(Storage::kAwaited, std::memory_order_release);
  });
}

std::unique_ptr<Pending> Tails::unlink(Pending& pending) {
  (pending.previous ? pending.previous->next : first) = pending.next;
  if (pending.next) pending.next->previous = pending.previous;
  for_sources(pending.tail, [](Storage& awaited) {
    if (--awaited.awaiting_ == 0) {
      awaited.state.fetch_and(static_cast<uint8_t>(~Storage::kAwaited), std::memory_order_release);
    }
  });
  pending.storage->pending_ = nullptr;
  return std::unique_ptr<Pending>(&pending);
}

void Tails::compute(Storage& storage, Lock& lock) {
  while (storage.pending_) {
    if (storage.pending_->running) {
      finished().wait(lock.lock_);
    } else if (compute_once(storage, lock)) {
      return;
    }
  }
}

/// False if somebody else may have changed what is pending before it was computed.
bool Tails::compute_once(Storage& storage, Lock& lock) {
  Pending* const pending = storage.pending_;
  // A mask may have been given up since.
  if (pending->tail.other.defined()) {
    if (const Tensor other = pending->tail.other; other.impl()->storage->pending_) {
      lock.kept_.push_back(other);
      compute(*other.impl()->storage, lock);
      return false;
    }
  }
  Pending* const below = pending->tail.base.impl()->storage->pending_;
  if (below && (below->running || !has_free_base(*pending))) {
    lock.kept_.push_back(pending->tail.base);
    compute(*below->storage, lock);
    return false;
  }
  profiler::Scope profile;
  const bool convolved = below || pending->tail.kind == Tail::Kind::kConvolved;
  if (profiler::wants(profiler::kOn)) [[unlikely]] {
    const bool masked = pending->tail.kind == Tail::Kind::kMasked;
    profile.start(below       ? "conv_batch_norm"
                  : convolved ? "conv"
                  : masked    ? "relu_backward"
                              : "batch_norm_apply",
                  ProfilerEvent::Kind::kOp);
  }
  if (!convolved) {
    const StreamScope scope(storage.device, pending->stream);
    const Tensor computed = pending->tail.compute(pending->tail, has_free_base(*pending), nullptr);
    settle(storage, computed, lock);
    return true;
  }
  // Convolutions of several threads don't wait for each other.
  struct Running {
    Running(Pending* of, Pending* and_of) : one(of), other(and_of) { set(true); }
    ~Running() {
      set(false);
      finished().notify_all();
    }
    void set(bool running) const {
      one->running = running;
      if (other) other->running = running;
    }
    Pending *one, *other;
  };
  Tensor computed;
  {
    const Running running(pending, below);
    lock.without([&] {
      computed = below ? below->tail.compute(below->tail, false, &pending->tail)
                       : pending->tail.compute(pending->tail, false, nullptr);
    });
  }
  if (below) lock.dropped_.push_back(unlink(*below));
  settle(storage, computed, lock);
  return true;
}

void Tails::fulfil(const Tensor& x, const Tensor& elements) {
  Lock lock;
  if (x.impl()->storage->pending_) settle(*x.impl()->storage, elements, lock);
}

bool Tails::take_base(const Tensor& x, const Tail& tail) {
  Lock lock;
  Storage& storage = *x.impl()->storage;
  const TensorImpl& base = *tail.base.impl();
  if (!storage.pending_ || x.impl()->use_count() > 1 || storage.use_count() > 1) return false;
  // Two: the tail of `x` and its copy.
  if (base.use_count() > 2 || base.storage->use_count() > 1 || !storage.device.is_cpu()) return false;
  lock.dropped_.push_back(unlink(*storage.pending_));
  return true;
}

void Tails::settle(Storage& storage, const Tensor& elements, Lock& lock) {
  std::swap(storage.data, elements.impl()->storage->data);
  std::unique_ptr<Pending> done = unlink(*storage.pending_);
  if (storage.held_ > 0 && may_repeat(*done) && done->tail.base.impl()->storage->data) {
    done->version = storage.version.load(std::memory_order_relaxed);
    done->base_version = done->tail.base.version();
    storage.repeat_ = std::move(done);
    storage.state.fetch_or(Storage::kRepeatable, std::memory_order_relaxed);
  } else {
    lock.dropped_.push_back(std::move(done));
  }
  // Another thread may drop the storage from here on.
  storage.state.fetch_and(static_cast<uint8_t>(~Storage::kPending), std::memory_order_release);
}

void Tails::hold(const Tensor& alias) {
  const Lock lock;
  ++alias.impl()->storage->held_;
}

void Tails::release(const Tensor& alias) {
  Lock lock;
  Storage& storage = *alias.impl()->storage;
  if (--storage.held_ > 0 || !storage.repeat_) return;
  lock.dropped_.push_back(std::move(storage.repeat_));
  storage.state.fetch_and(static_cast<uint8_t>(~Storage::kRepeatable), std::memory_order_relaxed);
}

void Tails::leave_to_held(Storage& storage) {
  if (has_lock) return;
  const Lock lock;
  if (!storage.repeat_ || storage.held_ == 0 || storage.use_count() != storage.held_ + 1) return;
  Pending& repeat = *storage.repeat_;
  // Backward has begun. The last to hold it is the ReLU that made it, which seldom reads it.
  if (repeat.again && storage.held_ > 1) return;
  const TensorImpl& base = *repeat.tail.base.impl();
  const bool kept = base.use_count() > 1 || base.storage->use_count() > 1;
  const bool same = repeat.version == storage.version.load(std::memory_order_relaxed) &&
                    repeat.base_version == repeat.tail.base.version();
  constexpr int kOther = Storage::kAwaited | Storage::kPacked;
  const uint8_t state = storage.state.load(std::memory_order_relaxed);
  const bool hidden = (state & Storage::kHidden) != 0;
  if (!kept || !same || storage.escaped || storage.retired_ || (state & kOther) ||
      hidden != base.is_hidden() || !can_wait(repeat.tail)) {
    return;
  }
  repeat.again = true;
  cpu::deallocate(std::exchange(storage.data, nullptr), storage.bytes);
  link(storage, std::move(storage.repeat_));
  storage.state.store(hidden ? Storage::kHidden | Storage::kPending : Storage::kPending,
                      std::memory_order_release);
}

void Tails::compute_awaiting(Storage& storage, Lock& lock) {
  while (storage.awaiting_ > 0) {
    Pending* const pending = find([&](const Pending& one) { return awaits(one, storage); });
    // The thread that computes it may drop it then.
    if (pending->running) {
      finished().wait(lock.lock_);
    } else {
      compute_once(*pending->storage, lock);
    }
  }
}

void Tails::drop(Storage& storage) {
  Lock lock;
  while (storage.pending_ && storage.pending_->running) finished().wait(lock.lock_);
  if (storage.pending_) lock.dropped_.push_back(unlink(*storage.pending_));
}

void Tails::compute_all() {
  Lock lock;
  const auto wanted = [](const Pending& pending) {
    return !pending.captured && !pending.storage->device.is_cpu();
  };
  while (Pending* pending = find(wanted)) compute(*pending->storage, lock);
}

void Tails::compute_all(Device device, void* stream) {
  const bool captured = backend(device).is_capturing();
  Lock lock;
  const auto wanted = [&](const Pending& pending) {
    return pending.captured == captured && pending.storage->device == device && pending.stream == stream;
  };
  while (Pending* pending = find(wanted)) compute(*pending->storage, lock);
}

}  // namespace opsin
