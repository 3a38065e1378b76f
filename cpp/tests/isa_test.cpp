#include "cpu/isa.h"

#include "raises.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <opsin/error.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// What a kernel family declares; here each level only tells its name.
struct LevelTable {
  const char* (*name)();
};
OPSIN_ISA_TABLE(LevelTable, level_table)

#define OPSIN_DEFINE_LEVEL(level)                                                  \
  namespace level {                                                                \
  const LevelTable& level_table() {                                                \
    static constexpr LevelTable table = {+[]() -> const char* { return #level; }}; \
    return table;                                                                  \
  }                                                                                \
  }
OPSIN_DEFINE_LEVEL(baseline)
#if defined(__x86_64__)
OPSIN_DEFINE_LEVEL(avx2)
OPSIN_DEFINE_LEVEL(avx512)
#endif

namespace {

CpuFeatures haswell() {
  CpuFeatures f;
  f.avx2 = f.fma = f.f16c = f.bmi2 = true;
  return f;
}

CpuFeatures skylake_server() {
  CpuFeatures f = haswell();
  f.avx512f = f.avx512bw = f.avx512dq = f.avx512vl = true;
  return f;
}

CpuFeatures cooper_lake() {
  CpuFeatures f = skylake_server();
  f.avx512_bf16 = true;
  return f;
}

CpuFeatures sapphire_rapids() {
  CpuFeatures f = cooper_lake();
  f.amx_tile = f.amx_bf16 = f.amx_int8 = true;
  return f;
}

TEST(Isa, BestLevelNeedsEveryFeature) {
  EXPECT_EQ(best_isa({}), Isa::baseline);
  EXPECT_EQ(best_isa(haswell()), Isa::avx2);
  EXPECT_EQ(best_isa(skylake_server()), Isa::avx512);
  EXPECT_EQ(best_isa(cooper_lake()), Isa::avx512_bf16);
  EXPECT_EQ(best_isa(sapphire_rapids()), Isa::amx_bf16);
  for (bool CpuFeatures::* member : {&CpuFeatures::amx_tile, &CpuFeatures::amx_bf16}) {
    CpuFeatures f = sapphire_rapids();
    f.*member = false;
    EXPECT_EQ(best_isa(f), Isa::avx512_bf16);
  }
  for (bool CpuFeatures::* member :
       {&CpuFeatures::avx2, &CpuFeatures::fma, &CpuFeatures::f16c, &CpuFeatures::bmi2}) {
    CpuFeatures f = skylake_server();
    f.*member = false;
    EXPECT_EQ(best_isa(f), Isa::baseline);
  }
  for (bool CpuFeatures::* member :
       {&CpuFeatures::avx512f, &CpuFeatures::avx512bw, &CpuFeatures::avx512dq, &CpuFeatures::avx512vl}) {
    CpuFeatures f = cooper_lake();
    f.*member = false;
    EXPECT_EQ(best_isa(f), Isa::avx2);
  }
}

TEST(Isa, ALowerLevelCanBeChosen) {
  EXPECT_EQ(choose_isa(skylake_server(), nullptr), Isa::avx512);
  EXPECT_EQ(choose_isa(skylake_server(), ""), Isa::avx512);
  EXPECT_EQ(choose_isa(skylake_server(), "avx512"), Isa::avx512);
  EXPECT_EQ(choose_isa(skylake_server(), "avx2"), Isa::avx2);
  EXPECT_EQ(choose_isa(skylake_server(), "baseline"), Isa::baseline);
  EXPECT_EQ(choose_isa(cooper_lake(), nullptr), Isa::avx512_bf16);
  EXPECT_EQ(choose_isa(cooper_lake(), "avx512_bf16"), Isa::avx512_bf16);
  EXPECT_EQ(choose_isa(cooper_lake(), "avx512"), Isa::avx512);
  EXPECT_EQ(choose_isa(sapphire_rapids(), nullptr), Isa::amx_bf16);
  EXPECT_EQ(choose_isa(sapphire_rapids(), "avx512_bf16"), Isa::avx512_bf16);
}

TEST(Isa, AnImpossibleLevelRaises) {
  EXPECT_RAISES(
      choose_isa(haswell(), "avx512"), ValueError,
      "OPSIN_ISA: expected at most avx2 on this machine, got avx512 (its features are avx2, fma, f16c, "
      "bmi2; unset OPSIN_ISA to use the best level)");
  EXPECT_RAISES(choose_isa({}, "avx2"), ValueError,
                "expected at most baseline on this machine, got avx2 (its features are none;");
}

TEST(Isa, AnUnknownLevelRaises) {
  for (const char* name : {"sse", "AVX2", "avx2 ", "avx5123"}) {
    EXPECT_RAISES(choose_isa(haswell(), name), ValueError,
                  "OPSIN_ISA: expected baseline, avx2, avx512, avx512_bf16 or amx_bf16, got \"" +
                      std::string(name) + "\" (this machine has up to avx2)");
  }
}

TEST(Isa, TheChosenLevelIsPossible) {
  EXPECT_LE(isa(), best_isa(cpu_features()));
  const char* requested = std::getenv("OPSIN_ISA");
  if (requested == nullptr || *requested == '\0') {
    const Isa best = best_isa(cpu_features());
    // The system may refuse the tile registers.
    EXPECT_TRUE(isa() == best || (best == Isa::amx_bf16 && isa() == Isa::avx512_bf16));
  }
}

#if defined(__x86_64__)
TEST(Isa, FeaturesAgreeWithTheCompilersOwnDetection) {
  const CpuFeatures& f = cpu_features();
  EXPECT_EQ(f.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(f.fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(f.bmi2, __builtin_cpu_supports("bmi2") != 0);
  EXPECT_EQ(f.avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(f.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(f.avx512dq, __builtin_cpu_supports("avx512dq") != 0);
  EXPECT_EQ(f.avx512vl, __builtin_cpu_supports("avx512vl") != 0);
  EXPECT_EQ(f.avx512_vnni, __builtin_cpu_supports("avx512vnni") != 0);
  EXPECT_EQ(f.avx512_bf16, __builtin_cpu_supports("avx512bf16") != 0);
}
#endif

TEST(Isa, FeaturesAndProcessorHaveNames) {
  const std::vector<std::string> names = features();
  EXPECT_EQ(std::count(names.begin(), names.end(), "avx2"), cpu_features().avx2 ? 1 : 0);
  EXPECT_EQ(std::count(names.begin(), names.end(), "avx512_bf16"), cpu_features().avx512_bf16 ? 1 : 0);
  EXPECT_FALSE(cpu_name().empty());
}

TEST(Dispatch, SelectsTheTableOfTheLevel) {
  // The tables of all kernels end at avx512.
  EXPECT_STREQ(OPSIN_ISA_SELECT(level_table).name(), isa_name(std::min(isa(), Isa::avx512)));
}

}  // namespace
}  // namespace opsin::cpu
