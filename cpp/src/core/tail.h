// Pending tails: tensors whose elements are computed when somebody wants them, so that the next pointwise op
// can join before memory is written at all. DESIGN.md, section 3.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <opsin/tensor.h>

namespace opsin {

/// How to compute a pending tensor, element by element in the order of the memory of `base`. Sources are
/// never pending, tails don't nest, but for the convolution below a batch norm.
struct Tail {
  enum class Kind : uint8_t {
    /// The batch norm of `base` by `numbers` (norm_kernels.h), plus `other` where there is one, then ReLU up
    /// to `ceiling`; each rounded to the dtype, as the ops apart would do.
    kNormalised,
    /// The gradient `base` where `other`, the output of a ReLU, is positive and below `ceiling`.
    kMasked,
    /// The convolution of `base` with the weight `other` and the bias `numbers`, which may be absent: nothing
    /// else is in the order of its memory.
    kConvolved
  };
  Kind kind;
  /// 0 without a ReLU, 6 for ReLU6, else infinity.
  double ceiling = 0;
  Tensor base, other, numbers;
  /// The elements: a tensor of its own, or `base` itself where that is `free` to be written over. Of a
  /// convolution, with `after` the elements of this tail, whose base it is.
  Tensor (*compute)(const Tail& tail, bool free, const Tail* after);
  /// What else that needs of a convolution.
  std::shared_ptr<const void> params;
};

/// The pending storages. The doors of TensorImpl come here when a storage is closed.
class OPSIN_API Tails {
 public:
  /// Held by whoever looks at tails or re-lays memory. What was dropped meanwhile dies after it is unlocked.
  class Lock {
   public:
    Lock();
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    friend class Tails;
    /// Until it has the mutex again, others may change all that is pending.
    template <class F>
    void without(F f);
    std::vector<std::unique_ptr<Pending>> dropped_;
    std::vector<Tensor> kept_;
    std::unique_lock<std::mutex> lock_;
  };

  /// False with OPSIN_FUSE=0 in the environment.
  static bool are_on();
  static bool is_pending(const Tensor& x) {
    return (x.impl()->storage->state.load(std::memory_order_acquire) & Storage::kPending) != 0;
  }

  /// A pending tensor with the geometry of `like`; undefined where it cannot wait.
  static Tensor leave(const Tail& tail, const Tensor& like);
  /// The same for a result with sizes of its own.
  static Tensor leave(const Tail& tail, const Dims& sizes, bool hidden);
  /// The tail of `x` if it is pending on the stream of the caller, of that kind, and `x` is all of it.
  static std::optional<Tail> peek(const Tensor& x, Tail::Kind kind);
  /// Replaces the tail that peek() found in `x`. False if it is no longer pending, or cannot wait.
  static bool replace(const Tensor& x, const Tail& tail);
  /// Gives `x`, if it is still pending, its elements, which somebody computed on the way: the memory of
  /// `elements`, which has none from then on.
  static void fulfil(const Tensor& x, const Tensor& elements);

  /// True if the caller alone can read `x` and the base of its tail, which it has from peek() and may write
  /// over then: `x` has no elements any more.
  static bool take_base(const Tensor& x, const Tail& tail);

  /// Whether the elements of `x` are, or were, made by a tail that may be computed a second time.
  static bool is_repeatable(const Tensor& x) {
    return (x.impl()->storage->state.load(std::memory_order_acquire) &
            (Storage::kPending | Storage::kRepeatable)) != 0 &&
           x.device().is_cpu();
  }
  /// Counts `alias`, a tensor of its own that only backward will read, until release(). While a storage has
  /// no other tensors, its elements are given up and it is pending once more, if `base` is kept by others
  /// anyway: for the price of a second pass over `base`, an activation between two convolutions needs no
  /// memory.
  static void hold(const Tensor& alias);
  static void release(const Tensor& alias);

  /// Says, as long as nobody writes `y` after `version`, that it is a ReLU of the batch norm by `numbers`.
  static void set_origin(const Tensor& y, const Tensor& numbers, uint32_t version);
  static bool has_origin(const Tensor& y, const Tensor& numbers);

  /// A batch norm that knows its numbers before it reads `y` tells whoever made that with a weight, which
  /// set_origin() said, if anything is packed of the weight.
  static void tell_normalised(const Tensor& y);

  /// Computes what is pending on GPUs, but for what captures made.
  static void compute_all();
  /// Computes what is pending on one stream; in a capture, what that made.
  static void compute_all(Device device, void* stream);

 private:
  friend class Storage;
  friend class TensorImpl;

  /// A tensor on the storage dies: only those that are held may be left.
  static void leave_to_held(Storage& storage);
  static void compute(Storage& storage, Lock& lock);
  static bool compute_once(Storage& storage, Lock& lock);
  static void settle(Storage& storage, const Tensor& elements, Lock& lock);
  /// Computes what awaits `storage`.
  static void compute_awaiting(Storage& storage, Lock& lock);
  static void drop(Storage& storage);
  static std::unique_ptr<Pending> unlink(Pending& pending);
  static void link(Storage& storage, std::unique_ptr<Pending> pending);
  static bool can_wait(const Tail& tail);
};

}  // namespace opsin
