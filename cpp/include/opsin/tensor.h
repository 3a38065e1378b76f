// The tensor: a strided view of a storage, with the state that autograd needs.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <opsin/api.h>
#include <opsin/device.h>
#include <opsin/dtype.h>
#include <opsin/error.h>
#include <opsin/ref.h>
#include <opsin/scalar.h>
#include <opsin/shape.h>

namespace opsin {

class Tensor;
class Node;
struct AutogradMeta;
using TensorSpan = std::span<const Tensor>;
using TensorList = std::vector<Tensor>;

struct Pending;
namespace cpu {
class PackedCache;
}

/// A block of memory with the version counter that all its views share.
class OPSIN_API Storage final : public RefCounted {
 public:
  using Deleter = void (*)(void* context, void* data, size_t bytes);

  /// Memory from the caching allocator of `device`.
  static Ref<Storage> allocate(size_t bytes, Device device);
  /// Foreign memory; `deleter(context, data, bytes)` runs when the last tensor on it dies. Never re-laid.
  static Ref<Storage> wrap(void* data, size_t bytes, Device device, Deleter deleter, void* context);
  static void destroy(Storage* storage);

  void* data = nullptr;
  size_t bytes = 0;
  Device device;
  /// What stands between a request and the memory; 0 for most storages.
  enum State : uint8_t {
    /// The elements lie channels-last. Such a storage has one geometry: every tensor on it spans it whole,
    /// with row-major logical strides, until the first request for strides re-lays it.
    kHidden = 1,
    /// The elements are not computed yet; the tail knows how.
    kPending = 2,
    /// Elements of pending storages will be computed from these.
    kAwaited = 4,
    /// Kernels kept what they packed of these elements.
    kPacked = 8,
    /// The elements are computed, and can be again: they need no memory while only backward will read them.
    kRepeatable = 16
  };
  std::atomic<uint8_t> state{0};
  /// Set once the address was handed to code outside the engine (NumPy, DLPack).
  bool escaped = false;
  /// Made in inference mode.
  bool inference = false;
  std::atomic<uint32_t> version{0};

  /// Where kernels may keep what they pack of the elements, a weight, until the next write: null on the first
  /// call for a version, since it may be the last, and where others than the engine may write.
  cpu::PackedCache* packed_cache();

 private:
  Storage();
  ~Storage();
  friend class TensorImpl;
  friend class Tails;

  /// Without memory, which the tail that a friend sets will bring.
  static Ref<Storage> reserve(size_t bytes, Device device);

  Deleter deleter_ = nullptr;
  void* context_ = nullptr;
  /// The block that held a hidden layout; kept so that a reader in another thread never loses it.
  void* retired_ = nullptr;
  Pending* pending_ = nullptr;
  /// How the elements were computed, where they are repeatable.
  std::unique_ptr<Pending> repeat_;
  /// How many tensors on this storage are held for backward, repeatably.
  uint32_t held_ = 0;
  /// How many pending storages await this one.
  uint32_t awaiting_ = 0;
  uint32_t origin_version_ = 0;
  /// While the version is `origin_version_`, these elements are a ReLU of the batch norm by these numbers.
  Ref<Storage> origin_;
  /// The version that packed_cache() was last called for, plus one.
  std::atomic<uint32_t> used_version_{0};
  std::atomic<cpu::PackedCache*> packed_{nullptr};
};

/// What a binding keeps on a tensor, so that the tensor is one object there for its whole life.
struct BindingState {
  void* wrapper = nullptr;     ///< The live wrapper, borrowed.
  void* type = nullptr;        ///< Owned: the wrapper's class when the wrapper died before the tensor.
  void* attributes = nullptr;  ///< Owned: the wrapper's attributes, likewise.
  /// Releases what is owned; set by the binding when it stores something.
  void (*release)(BindingState&) = nullptr;
};

class OPSIN_API TensorImpl final : public RefCounted {
 public:
  TensorImpl(Ref<Storage> storage, DType dtype, Dims sizes, Dims strides, int64_t offset);
  static void destroy(TensorImpl* impl);

  // The doors to memory. They compute what is pending, and before a write also what awaits the old values. A
  // pointer for writing is good until the tensor is used otherwise.

  /// For reading. Re-lays a hidden layout, because the caller will use strides().
  const char* data() {
    open(Storage::kHidden | Storage::kPending);
    return address();
  }
  /// For writing. The caller bumps the version if the tensor was visible before.
  char* mutable_data() {
    open(Storage::kHidden | Storage::kPending | Storage::kAwaited | Storage::kPacked);
    return address();
  }
  /// For kernels that honour physical_strides(): no re-laying. Only whole-storage tensors are ever hidden.
  const char* physical_data() const {
    open(Storage::kPending);
    return address();
  }
  char* mutable_physical_data() const {
    open(Storage::kPending | Storage::kAwaited | Storage::kPacked);
    return address();
  }
  /// Re-lays a hidden storage to its logical strides, once, under a lock.
  void expose() { open(Storage::kHidden); }
  Dims physical_strides() const;
  bool is_hidden() const { return (storage->state.load(std::memory_order_acquire) & Storage::kHidden) != 0; }

  Ref<Storage> storage;
  int64_t offset;  ///< In elements.
  int64_t numel;
  Dims sizes;
  Dims strides;  ///< In elements; logical.
  DType dtype;
  bool contiguous;  ///< Row-major and dense, by the logical strides.
  bool wrapped_number =
      false;  ///< Made from a Python or C++ number: takes part in promotion with its kind only.
  std::unique_ptr<AutogradMeta> autograd;
  BindingState binding;

 private:
  ~TensorImpl();
  void open(int closed_by) const {
    if (__builtin_expect(storage->state.load(std::memory_order_acquire) & closed_by, 0)) settle(closed_by);
  }
  void settle(int closed_by) const;
  char* address() const {
    return static_cast<char*>(storage->data) + offset * static_cast<int64_t>(item_size(dtype));
  }
};

/// Handle of a tensor; copies share it. Sizes are logical `[N, C, H, W]`. A default-constructed handle is
/// undefined and stands for an absent optional argument.
class OPSIN_API Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorImpl> impl) : impl_(std::move(impl)) {}

  bool defined() const { return static_cast<bool>(impl_); }
  explicit operator bool() const { return defined(); }
  TensorImpl* impl() const { return impl_.get(); }
  const Ref<TensorImpl>& ref() const { return impl_; }
  bool is_same(const Tensor& other) const { return impl_ == other.impl_; }

  int64_t dim() const { return static_cast<int64_t>(impl_->sizes.size()); }
  const Dims& sizes() const { return impl_->sizes; }
  /// As PyTorch would answer, whatever the layout in memory.
  const Dims& strides() const { return impl_->strides; }
  /// Negative dimensions count from the end; IndexError when out of range.
  int64_t size(int64_t dim) const;
  int64_t stride(int64_t dim) const;
  int64_t numel() const { return impl_->numel; }
  int64_t storage_offset() const { return impl_->offset; }
  DType dtype() const { return impl_->dtype; }
  Device device() const { return impl_->storage->device; }
  bool is_contiguous() const { return impl_->contiguous; }
  /// How often the memory was written in place; shared by all views of a storage.
  uint32_t version() const { return impl_->storage->version.load(std::memory_order_relaxed); }
  void bump_version() const { impl_->storage->version.fetch_add(1, std::memory_order_relaxed); }

  /// The door for reading; TypeError unless T is the dtype. Elements lie by strides().
  template <class T>
  const T* data() const {
    check_type(dtype_of<T>);
    return reinterpret_cast<const T*>(impl_->data());
  }
  /// The door for writing. Does not touch the version counter.
  template <class T>
  T* mutable_data() const {
    check_type(dtype_of<T>);
    return reinterpret_cast<T*>(impl_->mutable_data());
  }
  /// The value of a tensor of one element, converted to T; RuntimeError for more.
  template <class T>
  T item() const {
    return scalar().to<T>();
  }
  Scalar scalar() const;

  // Autograd; see opsin/autograd.h for the functions over several tensors.
  bool requires_grad() const;
  /// Only for leaves of floating-point dtype.
  const Tensor& set_requires_grad(bool requires_grad = true) const;
  bool is_leaf() const;
  /// The accumulated gradient of a leaf (or after retain_grad()); undefined if there is none.
  Tensor grad() const;
  void set_grad(const Tensor& grad) const;
  void retain_grad() const;
  /// Whether the memory was allocated in InferenceMode.
  bool is_inference() const { return impl_->storage->inference; }
  /// The node that made this tensor; null for leaves.
  Ref<Node> grad_fn() const;
  uint32_t output_nr() const;
  /// The same memory, outside the graph. In-place changes stay visible to version checks.
  Tensor detach() const;
  /// Adds the gradient of this tensor to every leaf below it. `gradient` defaults to 1 for one element.
  void backward(const Tensor& gradient = {}, bool retain_graph = false, bool create_graph = false) const;

 private:
  void check_type(DType wanted) const {
    OPSIN_CHECK(TypeError, impl_->dtype == wanted, "data: expected a tensor of ", name(wanted), ", got ",
                name(impl_->dtype), " (convert with to())");
  }

  Ref<TensorImpl> impl_;
};

/// Memory of the given shape with undefined values.
OPSIN_API Tensor empty(IntSpan sizes, DType dtype = default_dtype(), Device device = kCPU);
inline Tensor empty(std::initializer_list<int64_t> sizes, DType dtype = default_dtype(),
                    Device device = kCPU) {
  return empty(IntSpan(sizes.begin(), sizes.size()), dtype, device);
}
/// As `empty`, with the given strides in elements.
OPSIN_API Tensor empty_strided(IntSpan sizes, IntSpan strides, DType dtype, Device device = kCPU);
/// As `empty`, laid out channels-last in memory while strides() stay row-major. Needs rank >= 3.
OPSIN_API Tensor empty_channels_last(IntSpan sizes, DType dtype, Device device = kCPU);
/// A tensor over foreign memory; `deleter(context, data, bytes)` runs when the last tensor on it dies.
OPSIN_API Tensor from_blob(void* data, IntSpan sizes, IntSpan strides, DType dtype, Device device = kCPU,
                           Storage::Deleter deleter = nullptr, void* context = nullptr);
/// A 0-d tensor that takes part in type promotion as a number does.
OPSIN_API Tensor wrap_number(const Scalar& value, DType dtype);
inline Tensor wrap_number(const Scalar& value) { return wrap_number(value, value.dtype()); }

}  // namespace opsin
