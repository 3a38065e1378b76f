// Scratch memory of a kernel call, given back at the end of the scope.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/allocator.h"

namespace opsin::cpu {

/// `count` uninitialised elements, 64-byte aligned.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_(static_cast<size_t>(std::max<int64_t>(count, 0)) * sizeof(T)),
        data_(static_cast<T*>(allocate(bytes_))) {}
  ~Scratch() { deallocate(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }

 private:
  size_t bytes_;
  T* data_;
};

}  // namespace opsin::cpu
