// Conversion loops, compiled once per instruction set.
#include "copy_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class To, class T>
OPSIN_FN To convert(T x) {
  if constexpr (std::is_same_v<To, bool>) {
    return x != T(0);
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<T>) {
    // Through int64, so that out-of-range values wrap the same way on every instruction set.
    return static_cast<To>(static_cast<int64_t>(x));
  } else if constexpr (std::is_same_v<To, float16> || std::is_same_v<To, bfloat16>) {
    return To(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

/// to[i] = from[i * kStep], in vectors.
template <int kStep, class T>
OPSIN_FN void copy_by(T* to, const T* from, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = from[i * kStep];
}

/// For the loops below: GCC makes no vectors of classes.
template <class T>
struct Plain {
  using Type = T;
};
struct Bits {
  using Type [[gnu::may_alias]] = uint16_t;
};
template <>
struct Plain<float16> : Bits {};
template <>
struct Plain<bfloat16> : Bits {};

/// Elements as they are. Runs of one value, mirrored rows and every second element are common.
template <class T>
OPSIN_FN void move(char* const* data, const int64_t* strides, int64_t n) {
  constexpr int64_t kItem = sizeof(T);
  auto* to = reinterpret_cast<T*>(data[0]);
  const auto* from = reinterpret_cast<const T*>(data[1]);
  if (strides[0] == kItem) {
    if (strides[1] == kItem) {
      __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
      return;
    }
    if (strides[1] == 0) {
      const T value = *from;
      for (int64_t i = 0; i < n; ++i) to[i] = value;
      return;
    }
    if (strides[1] == -kItem) return copy_by<-1>(to, from, n);
    if (strides[1] == 2 * kItem) return copy_by<2>(to, from, n);
  }
  for (int64_t i = 0; i < n; ++i) {
    *reinterpret_cast<T*>(data[0] + i * strides[0]) = *reinterpret_cast<const T*>(data[1] + i * strides[1]);
  }
}

template <class From, class To>
void loop(char* const* data, const int64_t* strides, int64_t n, const void*) {
  if constexpr (std::is_same_v<From, To>) {
    move<typename Plain<To>::Type>(data, strides, n);
  } else {
    const auto f = [](Compute<From> x) { return convert<To>(x); };
    if (strides[1] == 0) {
      To value;
      char* const once[] = {reinterpret_cast<char*>(&value), data[1]};
      map_rows<To, From>(once, strides, 1, f);
      char* const again[] = {data[0], once[0]};
      return move<typename Plain<To>::Type>(again, strides, n);
    }
    map_rows<To, From>(data, strides, n, f);
  }
}

template <class From>
constexpr void fill(CastTable& table, DType from) {
  auto& row = table.loop[static_cast<int>(from)];
  row[static_cast<int>(kBool)] = loop<From, bool>;
  row[static_cast<int>(kUInt8)] = loop<From, uint8_t>;
  row[static_cast<int>(kInt8)] = loop<From, int8_t>;
  row[static_cast<int>(kInt16)] = loop<From, int16_t>;
  row[static_cast<int>(kInt32)] = loop<From, int32_t>;
  row[static_cast<int>(kInt64)] = loop<From, int64_t>;
  row[static_cast<int>(kFloat16)] = loop<From, float16>;
  row[static_cast<int>(kBFloat16)] = loop<From, bfloat16>;
  row[static_cast<int>(kFloat32)] = loop<From, float>;
  row[static_cast<int>(kFloat64)] = loop<From, double>;
}

constexpr CastTable make_table() {
  CastTable table{};
  fill<bool>(table, kBool);
  fill<uint8_t>(table, kUInt8);
  fill<int8_t>(table, kInt8);
  fill<int16_t>(table, kInt16);
  fill<int32_t>(table, kInt32);
  fill<int64_t>(table, kInt64);
  fill<float16>(table, kFloat16);
  fill<bfloat16>(table, kBFloat16);
  fill<float>(table, kFloat32);
  fill<double>(table, kFloat64);
  return table;
}

}  // namespace

const CastTable& cast_table() {
  static constexpr CastTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
