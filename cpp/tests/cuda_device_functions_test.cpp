// The emulator's versions of CUDA's device functions.
#include "emulated_orders.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "cuda/launch.h"

namespace opsin::cuda {
namespace {

OPSIN_IN_ALL_ORDERS(CudaAtomics);

struct Totals {
  int count = 0;
  unsigned wrapped = 0;
  unsigned long long large = 0;
  float single = 0;
  double twice = 0;
  int low = 1 << 30, high = -1;
  unsigned long long highest = 0;
  unsigned bits = 0;
  int sub = 0;
  float product = 1;
  int last = -1;
};

__global__ void accumulate(Totals* totals) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&totals->count, 1);
  atomicAdd(&totals->wrapped, 0x80000001u);
  atomicAdd(&totals->large, 1ull << 32);
  atomicAdd(&totals->single, 1.0f);
  atomicAdd(&totals->twice, 0.5);
  atomicMin(&totals->low, i + 3);
  atomicMax(&totals->high, i);
  atomicMax(&totals->highest, static_cast<unsigned long long>(i) << 40);
  atomicOr(&totals->bits, 1u << i % 32);
  atomicSub(&totals->sub, 2);
  atomicExch(&totals->last, i);
  if (i % 512 == 0) {
    // Multiplication as any other update: by compare-and-swap of the bits.
    int* cell = reinterpret_cast<int*>(&totals->product);
    int seen = atomicAdd(cell, 0);
    for (int expected = seen + 1; seen != expected;) {
      expected = seen;
      seen = atomicCAS(cell, expected, __float_as_int(2.0f * __int_as_float(expected)));
    }
  }
}

TEST_P(CudaAtomics, AtomicsLoseNothing) {
  Totals totals;
  OPSIN_LAUNCH(accumulate, 32, 128, 0, &totals);
  EXPECT_EQ(totals.count, 4096);
  EXPECT_EQ(totals.wrapped, 4096u);
  EXPECT_EQ(totals.large, 4096ull << 32);
  EXPECT_EQ(totals.single, 4096.0f);
  EXPECT_EQ(totals.twice, 2048.0);
  EXPECT_EQ(totals.low, 3);
  EXPECT_EQ(totals.high, 4095);
  EXPECT_EQ(totals.highest, 4095ull << 40);
  EXPECT_EQ(totals.bits, 0xffffffffu);
  EXPECT_EQ(totals.sub, -8192);
  EXPECT_EQ(totals.product, 256.0f);
  EXPECT_GE(totals.last, 0);
}

/// The last block to finish adds up what all of them left.
__global__ void last_block_adds(const int* x, int* partial, unsigned* finished, int* y) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    int sum = 0;
    for (unsigned i = 0; i < blockDim.x; ++i) sum += x[blockIdx.x * blockDim.x + i];
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(finished, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    __threadfence();
    for (unsigned i = 0; i < gridDim.x; ++i) *y += partial[i];
  }
}

TEST_P(CudaAtomics, TheLastBlockSeesAllOthers) {
  std::vector<int> x(64 * 64);
  std::iota(x.begin(), x.end(), 1);
  std::vector<int> partial(64);
  unsigned finished = 0;
  int y = 0;
  OPSIN_LAUNCH(last_block_adds, 64, 64, 0, x.data(), partial.data(), &finished, &y);
  EXPECT_EQ(y, 64 * 64 * (64 * 64 + 1) / 2);
}

TEST(CudaDeviceFunctions, GiveWhatTheManualSays) {
  EXPECT_EQ(__popc(0xf0f00001u), 9);
  EXPECT_EQ(__popcll(~0ull), 64);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clz(-1), 0);
  EXPECT_EQ(__clzll(1), 63);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__ffsll(1ll << 40), 41);
  EXPECT_EQ(__brev(0x00000003u), 0xc0000000u);
  EXPECT_EQ(__brev(0x12345678u), 0x1e6a2c48u);
  EXPECT_EQ(__umulhi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
  EXPECT_EQ(__umul64hi(~0ull, 2), 1ull);
  EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
  EXPECT_EQ(__longlong_as_double(__double_as_longlong(-2.5)), -2.5);
  EXPECT_EQ(__float2int_rn(2.5f), 2);
  EXPECT_EQ(__float2int_rn(-3.5f), -4);
  EXPECT_EQ(__float2int_rn(1e20f), std::numeric_limits<int>::max());
  EXPECT_EQ(__float2int_rn(-1e20f), std::numeric_limits<int>::min());
  EXPECT_EQ(__float2int_rn(std::nanf("")), 0);
  EXPECT_FLOAT_EQ(__expf(1.0f), 2.7182817f);
  EXPECT_FLOAT_EQ(__logf(10.0f), 2.3025851f);
  EXPECT_FLOAT_EQ(__powf(2.0f, 0.5f), 1.4142135f);
  EXPECT_FLOAT_EQ(rsqrtf(16.0f), 0.25f);
  EXPECT_FLOAT_EQ(__fdividef(1.0f, 8.0f), 0.125f);
  float sine = 0, cosine = 0;
  __sincosf(0.5f, &sine, &cosine);
  EXPECT_FLOAT_EQ(sine * sine + cosine * cosine, 1.0f);
  EXPECT_EQ(min(3, 5), 3);
  EXPECT_EQ(max(-1, 1u), 0xffffffffu);
  EXPECT_EQ(max(2.0f, std::nanf("")), 2.0f);
  EXPECT_EQ(min(1.5f, 0.5), 0.5);
}

TEST(CudaDeviceFunctions, VectorTypesHaveTheSizesOfCuda) {
  static_assert(sizeof(float2) == 8 && alignof(float2) == 8);
  static_assert(sizeof(float3) == 12 && alignof(float3) == 4);
  static_assert(sizeof(float4) == 16 && alignof(float4) == 16);
  static_assert(sizeof(int4) == 16 && alignof(uint4) == 16);
  static_assert(sizeof(double2) == 16 && alignof(longlong2) == 16);
  static_assert(sizeof(uchar4) == 4 && alignof(uchar4) == 4 && alignof(short4) == 8);
  const float4 four = make_float4(1, 2, 3, 4);
  EXPECT_EQ(__ldg(&four).w, 4.0f);
  EXPECT_EQ(make_int2(5, 6).y, 6);
  EXPECT_EQ(dim3(make_uint3(7, 8, 9)).z, 9u);
}

}  // namespace
}  // namespace opsin::cuda
