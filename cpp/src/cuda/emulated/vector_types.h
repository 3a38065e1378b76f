// CUDA's small vector types, with its sizes and alignments.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
  constexpr dim3(uint3 size) : x(size.x), y(size.y), z(size.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

constexpr uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

#define OPSIN_VECTOR_2(T, name, align) \
  struct alignas(align) name {         \
    T x, y;                            \
  };                                   \
  constexpr name make_##name(T x, T y) { return {x, y}; }
#define OPSIN_VECTOR_3(T, name) \
  struct name {                 \
    T x, y, z;                  \
  };                            \
  constexpr name make_##name(T x, T y, T z) { return {x, y, z}; }
#define OPSIN_VECTOR_4(T, name, align) \
  struct alignas(align) name {         \
    T x, y, z, w;                      \
  };                                   \
  constexpr name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }

OPSIN_VECTOR_2(signed char, char2, 2)
OPSIN_VECTOR_2(unsigned char, uchar2, 2)
OPSIN_VECTOR_2(short, short2, 4)
OPSIN_VECTOR_2(unsigned short, ushort2, 4)
OPSIN_VECTOR_2(int, int2, 8)
OPSIN_VECTOR_2(unsigned, uint2, 8)
OPSIN_VECTOR_2(float, float2, 8)
OPSIN_VECTOR_2(double, double2, 16)
OPSIN_VECTOR_2(long long, longlong2, 16)
OPSIN_VECTOR_2(unsigned long long, ulonglong2, 16)
OPSIN_VECTOR_3(int, int3)
OPSIN_VECTOR_3(float, float3)
OPSIN_VECTOR_4(signed char, char4, 4)
OPSIN_VECTOR_4(unsigned char, uchar4, 4)
OPSIN_VECTOR_4(short, short4, 8)
OPSIN_VECTOR_4(unsigned short, ushort4, 8)
OPSIN_VECTOR_4(int, int4, 16)
OPSIN_VECTOR_4(unsigned, uint4, 16)
OPSIN_VECTOR_4(float, float4, 16)

#undef OPSIN_VECTOR_2
#undef OPSIN_VECTOR_3
#undef OPSIN_VECTOR_4
