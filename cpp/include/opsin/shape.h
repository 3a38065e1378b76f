// Sizes and strides: a vector of int64 that keeps up to five entries without touching the heap.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include <opsin/api.h>

namespace opsin {

using IntSpan = std::span<const int64_t>;

class Dims {
 public:
  Dims() = default;
  explicit Dims(size_t size, int64_t value = 0) {
    resize_uninitialized(size);
    std::fill(begin(), end(), value);
  }
  Dims(std::initializer_list<int64_t> values) { assign(values.begin(), values.size()); }
  Dims(IntSpan values) { assign(values.data(), values.size()); }
  Dims(const Dims& other) { assign(other.data(), other.size_); }
  Dims(Dims&& other) noexcept { take(other); }
  Dims& operator=(const Dims& other) {
    if (this != &other) assign(other.data(), other.size_);
    return *this;
  }
  Dims& operator=(Dims&& other) noexcept {
    if (this != &other) take(other);
    return *this;
  }
  ~Dims() = default;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t* data() { return data_; }
  const int64_t* data() const { return data_; }
  int64_t* begin() { return data(); }
  int64_t* end() { return data() + size_; }
  const int64_t* begin() const { return data(); }
  const int64_t* end() const { return data() + size_; }
  int64_t& operator[](size_t i) { return data()[i]; }
  int64_t operator[](size_t i) const { return data()[i]; }
  int64_t& back() { return data()[size_ - 1]; }
  int64_t back() const { return data()[size_ - 1]; }
  operator IntSpan() const { return {data(), size_}; }
  IntSpan span() const { return {data(), size_}; }

  void push_back(int64_t value) { insert(size_, value); }
  void insert(size_t position, int64_t value) {
    reserve(size_ + 1u);
    int64_t* d = data();
    std::copy_backward(d + position, d + size_, d + size_ + 1);
    d[position] = value;
    ++size_;
  }
  void erase(size_t position) {
    int64_t* d = data();
    std::copy(d + position + 1, d + size_, d + position);
    --size_;
  }
  void clear() { size_ = 0; }
  void resize(size_t size, int64_t value = 0) {
    reserve(size);
    if (size > size_) std::fill(data() + size_, data() + size, value);
    size_ = static_cast<uint32_t>(size);
  }

  friend bool operator==(const Dims& a, const Dims& b) {
    return a.size_ == b.size_ && std::equal(a.begin(), a.end(), b.begin());
  }

 private:
  static constexpr uint32_t kInline = 5;

  void reserve(size_t capacity) {
    if (capacity <= capacity_) return;
    auto grown = std::make_unique_for_overwrite<int64_t[]>(2 * capacity);
    std::copy_n(data(), size_, grown.get());
    heap_ = std::move(grown);
    data_ = heap_.get();
    capacity_ = static_cast<uint32_t>(2 * capacity);
  }
  void resize_uninitialized(size_t size) {
    if (size > capacity_) {
      heap_ = std::make_unique_for_overwrite<int64_t[]>(size);
      data_ = heap_.get();
      capacity_ = static_cast<uint32_t>(size);
    }
    size_ = static_cast<uint32_t>(size);
  }
  void assign(const int64_t* values, size_t size) {
    resize_uninitialized(size);
    std::copy_n(values, size, data());
  }

  void take(Dims& other) noexcept {
    size_ = other.size_;
    capacity_ = other.capacity_;
    heap_ = std::move(other.heap_);
    data_ = heap_ ? heap_.get() : inline_;
    if (!heap_) std::copy_n(other.inline_, size_, inline_);
    other.size_ = 0;
    other.capacity_ = kInline;
    other.data_ = other.inline_;
  }

  int64_t* data_ = inline_;
  uint32_t size_ = 0;
  uint32_t capacity_ = kInline;
  std::unique_ptr<int64_t[]> heap_;
  int64_t inline_[kInline];
};

/// The number of elements; ShapeError that names `op` if a size is negative or the product overflows int64.
OPSIN_API int64_t count_elements(IntSpan sizes, const char* op = "size");
/// Row-major strides of a dense tensor (a size of 0 counts as 1, as in PyTorch).
OPSIN_API Dims contiguous_strides(IntSpan sizes);
/// Whether the elements fill a block of memory without gaps or overlaps, in any order of the dimensions.
OPSIN_API bool is_dense(IntSpan sizes, IntSpan strides);
/// The common shape under NumPy's broadcasting rule; ShapeError that names `op` and both shapes otherwise.
OPSIN_API Dims broadcast_shapes(IntSpan a, IntSpan b, const char* op = "broadcast_shapes");
/// Wraps a dimension in [-rank, rank) to [0, rank); IndexError that names `op` otherwise. Rank 0 counts as 1.
OPSIN_API int64_t wrap_dim(int64_t dim, int64_t rank, const char* op);
/// One value for each of `axes` axes from an argument that gives one for all, one for each, or none (then
/// `missing`). ShapeError that names `op` and the argument `what` if there are others or one is below
/// `least`.
OPSIN_API Dims per_axis(IntSpan values, size_t axes, int64_t missing, int64_t least, const char* op,
                        const char* what);
/// "[2, 3]".
OPSIN_API std::string str(IntSpan sizes);

}  // namespace opsin
