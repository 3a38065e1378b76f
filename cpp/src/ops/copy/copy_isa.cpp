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

template <class From, class To>
void loop(char* const* data, const int64_t* strides, int64_t n, const void*) {
  if constexpr (std::is_same_v<From, To>) {
    if (strides[0] == sizeof(To) && strides[1] == sizeof(To)) {
      __builtin_memcpy(data[0], data[1], static_cast<size_t>(n) * sizeof(To));
      return;
    }
    for (int64_t i = 0; i < n; ++i) {
      *reinterpret_cast<To*>(data[0] + i * strides[0]) =
          *reinterpret_cast<const To*>(data[1] + i * strides[1]);
    }
  } else {
    map_rows<To, From>(data, strides, n, [](Compute<From> x) { return convert<To>(x); });
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
