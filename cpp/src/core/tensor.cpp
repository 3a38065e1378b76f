#include <cstring>

#include <opsin/autograd.h>
#include <opsin/tensor.h>

#include "core/backend.h"
#include "core/relayout.h"
#include "core/tail.h"
#include "cpu/allocator.h"
#include "cpu/packed_cache.h"

namespace opsin {

namespace {

void* allocate_block(size_t bytes, Device device) {
  return device.is_cpu() ? cpu::allocate(bytes) : backend(device).allocate(bytes, device);
}
void deallocate_block(void* data, size_t bytes, Device device) noexcept {
  if (device.is_cpu()) return cpu::deallocate(data, bytes);
  if (data) backend(device).deallocate(data, bytes, device);
}

void free_block(void*, void* data, size_t bytes) { cpu::deallocate(data, bytes); }
void free_device_block(void* storage, void* data, size_t bytes) {
  deallocate_block(data, bytes, static_cast<Storage*>(storage)->device);
}

bool row_major(IntSpan sizes, IntSpan strides) {
  int64_t expected = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] == 0) return true;
    if (sizes[i] == 1) continue;
    if (strides[i] != expected) return false;
    expected *= sizes[i];
  }
  return true;
}

size_t checked_bytes(int64_t count, DType dtype) {
  int64_t bytes = 0;
  OPSIN_CHECK(ShapeError, !__builtin_mul_overflow(count, static_cast<int64_t>(item_size(dtype)), &bytes),
              "empty: ", count, " elements of ", name(dtype), " overflow 64 bits");
  return static_cast<size_t>(bytes);
}

}  // namespace

Ref<Storage> Storage::allocate(size_t bytes, Device device) {
  // Raises where the device does not exist, also for no bytes.
  Backend* const other = device.is_cpu() ? nullptr : &backend(device);
  Ref<Storage> storage = reserve(bytes, device);
  if (bytes > 0) storage->data = other ? other->allocate(bytes, device) : cpu::allocate(bytes);
  return storage;
}

Ref<Storage> Storage::reserve(size_t bytes, Device device) {
  Ref<Storage> storage = Ref<Storage>::adopt(new Storage);
  storage->device = device;
  storage->bytes = bytes;
  storage->deleter_ = device.is_cpu() ? free_block : free_device_block;
  if (!device.is_cpu()) storage->context_ = storage.get();
  storage->inference = InferenceMode::is_enabled();
  return storage;
}

Ref<Storage> Storage::wrap(void* data, size_t bytes, Device device, Deleter deleter, void* context) {
  Ref<Storage> storage = Ref<Storage>::adopt(new Storage);
  storage->data = data;
  storage->bytes = bytes;
  storage->device = device;
  storage->deleter_ = deleter;
  storage->context_ = context;
  storage->escaped = true;
  storage->inference = InferenceMode::is_enabled();
  return storage;
}

void Storage::destroy(Storage* storage) {
  if (storage->state.load(std::memory_order_acquire) & kPending) Tails::drop(*storage);
  delete storage->packed_.load(std::memory_order_acquire);
  if (storage->deleter_ && (storage->data || storage->context_)) {
    storage->deleter_(storage->context_, storage->data, storage->bytes);
  }
  if (storage->retired_) deallocate_block(storage->retired_, storage->bytes, storage->device);
  delete storage;
}

cpu::PackedCache* Storage::packed_cache() {
  if (escaped || deleter_ != free_block) return nullptr;
  const uint32_t used = version.load(std::memory_order_acquire) + 1;
  if (used_version_.exchange(used, std::memory_order_relaxed) != used) return nullptr;
  cpu::PackedCache* cache = packed_.load(std::memory_order_acquire);
  if (cache) return cache;
  auto* const made = new cpu::PackedCache(state, kPacked);
  if (packed_.compare_exchange_strong(cache, made, std::memory_order_acq_rel)) return made;
  delete made;
  return cache;
}

TensorImpl::TensorImpl(Ref<Storage> storage_, DType dtype_, Dims sizes_, Dims strides_, int64_t offset_)
    : storage(std::move(storage_)),
      offset(offset_),
      numel(1),
      sizes(std::move(sizes_)),
      strides(std::move(strides_)),
      dtype(dtype_),
      contiguous(row_major(sizes, strides)) {
  for (const int64_t size : sizes) numel *= size;
}

TensorImpl::~TensorImpl() = default;

void TensorImpl::destroy(TensorImpl* impl) {
  Storage& storage = *impl->storage;
  if (storage.state.load(std::memory_order_acquire) & Storage::kRepeatable) [[unlikely]] {
    Tails::leave_to_held(storage);
  }
  if (impl->binding.release) impl->binding.release(impl->binding);
  delete impl;
}

Dims TensorImpl::physical_strides() const { return is_hidden() ? channels_last_strides(sizes) : strides; }

void TensorImpl::settle(int closed_by) const {
  Tails::Lock lock;
  if (closed_by & Storage::kAwaited) Tails::compute_awaiting(*storage, lock);
  // After what awaits these elements, which may pack them.
  if (closed_by & storage->state.load(std::memory_order_acquire) & Storage::kPacked) {
    storage->packed_.load(std::memory_order_acquire)->clear();
  }
  Tails::compute(*storage, lock);
  if (!(closed_by & Storage::kHidden) || !is_hidden()) return;
  // What awaits these elements expects them where they are. Meanwhile another thread may re-lay them.
  Tails::compute_awaiting(*storage, lock);
  if (!is_hidden()) return;
  void* plain = allocate_block(storage->bytes, storage->device);
  relay_to_row_major(storage->data, plain, sizes, item_size(dtype), storage->device);
  storage->retired_ = std::exchange(storage->data, plain);
  storage->state.fetch_and(static_cast<uint8_t>(~Storage::kHidden), std::memory_order_release);
}

int64_t Tensor::size(int64_t d) const { return sizes()[static_cast<size_t>(wrap_dim(d, dim(), "size"))]; }

int64_t Tensor::stride(int64_t d) const {
  return strides()[static_cast<size_t>(wrap_dim(d, dim(), "stride"))];
}

Scalar Tensor::scalar() const {
  OPSIN_CHECK(Error, numel() == 1, "item: a Tensor with ", numel(),
              " elements cannot be converted to Scalar (expected one element)");
  const char* data = impl_->data();
  alignas(16) char copied[16];
  if (!device().is_cpu()) {
    backend(device()).copy(copied, kCPU, data, device(), item_size(dtype()), false);
    data = copied;
  }
  switch (dtype()) {
    case kBool:
      return Scalar(*data != 0);
    case kUInt8:
      return Scalar(*reinterpret_cast<const uint8_t*>(data));
    case kInt8:
      return Scalar(*reinterpret_cast<const int8_t*>(data));
    case kInt16:
      return Scalar(*reinterpret_cast<const int16_t*>(data));
    case kInt32:
      return Scalar(*reinterpret_cast<const int32_t*>(data));
    case kInt64:
      return Scalar(*reinterpret_cast<const int64_t*>(data));
    case kFloat16:
      return Scalar(static_cast<float>(*reinterpret_cast<const float16*>(data)));
    case kBFloat16:
      return Scalar(static_cast<float>(*reinterpret_cast<const bfloat16*>(data)));
    case kFloat32:
      return Scalar(*reinterpret_cast<const float*>(data));
    case kFloat64:
      return Scalar(*reinterpret_cast<const double*>(data));
    case kComplex64:
      return Scalar(std::complex<double>(*reinterpret_cast<const std::complex<float>*>(data)));
    default:
      return Scalar(*reinterpret_cast<const std::complex<double>*>(data));
  }
}

Tensor empty(IntSpan sizes, DType dtype, Device device) {
  const int64_t count = count_elements(sizes);
  return Tensor(make_ref<TensorImpl>(Storage::allocate(checked_bytes(count, dtype), device), dtype,
                                     Dims(sizes), contiguous_strides(sizes), 0));
}

Tensor empty_strided(IntSpan sizes, IntSpan strides, DType dtype, Device device) {
  OPSIN_CHECK(ShapeError, sizes.size() == strides.size(),
              "empty_strided: expected as many strides as sizes, got ", str(sizes), " and ", str(strides));
  int64_t last = 0;
  bool overflow = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    OPSIN_CHECK(ValueError, strides[i] >= 0, "empty_strided: expected non-negative strides, got ",
                str(strides));
    int64_t reach = 0;
    overflow |= __builtin_mul_overflow(std::max<int64_t>(sizes[i], 1) - 1, strides[i], &reach);
    overflow |= __builtin_add_overflow(last, reach, &last);
  }
  const int64_t count = count_elements(sizes);
  OPSIN_CHECK(ShapeError, !overflow && last < INT64_MAX, "empty_strided: ", str(sizes), " with strides ",
              str(strides), " overflows 64 bits");
  return Tensor(
      make_ref<TensorImpl>(Storage::allocate(checked_bytes(count == 0 ? 0 : last + 1, dtype), device), dtype,
                           Dims(sizes), Dims(strides), 0));
}

Tensor empty_channels_last(IntSpan sizes, DType dtype, Device device) {
  OPSIN_CHECK(ShapeError, sizes.size() >= 3, "empty_channels_last: expected sizes [N, C, spatial...], got ",
              str(sizes));
  Tensor tensor = empty(sizes, dtype, device);
  if (tensor.numel() > 0 && !is_same_order(sizes)) {
    tensor.impl()->storage->state.store(Storage::kHidden, std::memory_order_relaxed);
  }
  return tensor;
}

Tensor from_blob(void* data, IntSpan sizes, IntSpan strides, DType dtype, Device device,
                 Storage::Deleter deleter, void* context) {
  const int64_t count = count_elements(sizes);
  int64_t last = 0;
  for (size_t i = 0; i < sizes.size(); ++i) last += (std::max<int64_t>(sizes[i], 1) - 1) * strides[i];
  const size_t bytes = checked_bytes(count == 0 ? 0 : last + 1, dtype);
  return Tensor(make_ref<TensorImpl>(Storage::wrap(data, bytes, device, deleter, context), dtype, Dims(sizes),
                                     Dims(strides), 0));
}

}  // namespace opsin
