// Brings rows of any stride and storage to the dense kernels, block by block.
#include <cstring>

#include "core/dense_rows.h"
#include "core/half_rows.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

constexpr int64_t kBlock = 512;
constexpr int kMax = Elementwise::kMaxOperands;
template <class U>
void gather(const char* from, int64_t stride, void* to, int64_t n) {
  auto* out = static_cast<U*>(to);
  for (int64_t i = 0; i < n; ++i) out[i] = *reinterpret_cast<const U*>(from + i * stride);
}
template <class U>
void scatter(const void* from, char* to, int64_t stride, int64_t n) {
  const auto* in = static_cast<const U*>(from);
  for (int64_t i = 0; i < n; ++i) *reinterpret_cast<U*>(to + i * stride) = in[i];
}
void gather(const char* from, int64_t stride, int size, void* to, int64_t n) {
  if (size == 4) return gather<uint32_t>(from, stride, to, n);
  if (size == 8) return gather<uint64_t>(from, stride, to, n);
  return size == 2 ? gather<uint16_t>(from, stride, to, n) : gather<uint8_t>(from, stride, to, n);
}
void scatter(const void* from, char* to, int64_t stride, int size, int64_t n) {
  if (size == 4) return scatter<uint32_t>(from, to, stride, n);
  if (size == 8) return scatter<uint64_t>(from, to, stride, n);
  return size == 2 ? scatter<uint16_t>(from, to, stride, n) : scatter<uint8_t>(from, to, stride, n);
}

/// n elements as the kernel computes with them.
void read_block(const char* from, int64_t stride, int size, Stored stored, void* to, int64_t n) {
  if (stored == Stored::kPlain) return gather(from, stride, size, to, n);
  alignas(64) uint16_t packed[kBlock];
  const auto* source = reinterpret_cast<const uint16_t*>(from);
  if (stride != 2) {
    gather<uint16_t>(from, stride, packed, n);
    source = packed;
  }
  if (stored == Stored::kHalf) return widen_half(source, static_cast<float*>(to), n);
  widen_bfloat(source, static_cast<float*>(to), n);
}
void write_block(const void* from, char* to, int64_t stride, int size, Stored stored, int64_t n) {
  if (stored == Stored::kPlain) return scatter(from, to, stride, size, n);
  alignas(64) uint16_t packed[kBlock];
  auto* target = stride == 2 ? reinterpret_cast<uint16_t*>(to) : packed;
  if (stored == Stored::kHalf) {
    narrow_half(static_cast<const float*>(from), target, n);
  } else {
    narrow_bfloat(static_cast<const float*>(from), target, n);
  }
  if (stride != 2) scatter<uint16_t>(packed, to, stride, n);
}

void rows(char* const* data, const int64_t* strides, int64_t n, const void* params) {
  const auto& call = *static_cast<const DenseCall*>(params);
  alignas(64) char buffers[kMax][kBlock * 8];
  void* block[kMax];
  bool direct[kMax];
  bool all_direct = true;
  for (int i = 0; i < call.operands; ++i) {
    direct[i] = call.stored[i] == Stored::kPlain && strides[i] == call.size[i];
    all_direct &= direct[i];
    block[i] = direct[i] ? data[i] : buffers[i];
  }
  if (all_direct) return call.kernel(block, n, call.params);
  for (int i = 1; i < call.operands; ++i) {
    if (!direct[i] && strides[i] == 0) {
      read_block(data[i], 0, call.size[i], call.stored[i], buffers[i], n < kBlock ? n : kBlock);
    }
  }
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t m = n - begin < kBlock ? n - begin : kBlock;
    for (int i = 0; i < call.operands; ++i) {
      if (direct[i]) {
        block[i] = data[i] + begin * call.size[i];
      } else if (i > 0 && strides[i] != 0) {
        read_block(data[i] + begin * strides[i], strides[i], call.size[i], call.stored[i], buffers[i], m);
      }
    }
    call.kernel(block, m, call.params);
    if (!direct[0]) {
      write_block(buffers[0], data[0] + begin * strides[0], strides[0], call.size[0], call.stored[0], m);
    }
  }
}

constexpr DenseTable kTable{rows};

}  // namespace

const DenseTable& dense_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
