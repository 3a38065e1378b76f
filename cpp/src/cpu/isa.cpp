#include "isa.h"

#include <cstdlib>
#include <cstring>

#include <opsin/error.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace opsin::cpu {
namespace {

struct Named {
  const char* name;
  bool CpuFeatures::* member;
};

constexpr Named kNamed[] = {
    {"avx2", &CpuFeatures::avx2},
    {"fma", &CpuFeatures::fma},
    {"f16c", &CpuFeatures::f16c},
    {"bmi2", &CpuFeatures::bmi2},
    {"avx512f", &CpuFeatures::avx512f},
    {"avx512bw", &CpuFeatures::avx512bw},
    {"avx512dq", &CpuFeatures::avx512dq},
    {"avx512vl", &CpuFeatures::avx512vl},
    {"avx512_vnni", &CpuFeatures::avx512_vnni},
    {"avx512_bf16", &CpuFeatures::avx512_bf16},
    {"avx512_fp16", &CpuFeatures::avx512_fp16},
    {"amx_tile", &CpuFeatures::amx_tile},
    {"amx_bf16", &CpuFeatures::amx_bf16},
    {"amx_int8", &CpuFeatures::amx_int8},
};

#if defined(__x86_64__)

/// The register sets that the operating system saves (XCR0). Without them an instruction of the set faults.
uint64_t saved_state() {
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

CpuFeatures detect() {
  CpuFeatures f;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  const auto bit = [](uint32_t word, int index) { return ((word >> index) & 1) != 0; };
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return f;
  const bool osxsave = bit(c, 27);
  if (!osxsave || !bit(c, 28)) return f;
  const uint64_t state = saved_state();
  constexpr uint64_t kAvxState = 0x6;
  constexpr uint64_t kAvx512State = 0xe6;
  constexpr uint64_t kAmxState = 0x60000;
  const bool ymm = (state & kAvxState) == kAvxState;
  const bool zmm = (state & kAvx512State) == kAvx512State;
  const bool tiles = (state & kAmxState) == kAmxState;
  f.fma = ymm && bit(c, 12);
  f.f16c = ymm && bit(c, 29);
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return f;
  const uint32_t last_subleaf = a;
  f.avx2 = ymm && bit(b, 5);
  f.bmi2 = bit(b, 8);
  f.avx512f = zmm && bit(b, 16);
  f.avx512dq = zmm && bit(b, 17);
  f.avx512bw = zmm && bit(b, 30);
  f.avx512vl = zmm && bit(b, 31);
  f.avx512_vnni = zmm && bit(c, 11);
  f.avx512_fp16 = zmm && bit(d, 23);
  f.amx_bf16 = tiles && bit(d, 22);
  f.amx_tile = tiles && bit(d, 24);
  f.amx_int8 = tiles && bit(d, 25);
  if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) f.avx512_bf16 = zmm && bit(a, 5);
#if defined(OPSIN_AMX_MODEL)
  f.amx_tile = f.amx_bf16 = true;
#endif
  return f;
}

/// Linux lends the tile registers only to processes that ask for them. All threads have the permission then,
/// those that run already too; it is refused where the signal stack of one could not hold the registers.
bool ask_for_tiles() {
#if defined(OPSIN_AMX_MODEL)
  return true;
#else
  constexpr long kRequestPermission = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#endif
}

#else

CpuFeatures detect() { return {}; }
bool ask_for_tiles() { return false; }

#endif

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::vector<std::string> names_of(const CpuFeatures& features) {
  std::vector<std::string> names;
  for (const Named& named : kNamed) {
    if (features.*named.member) names.emplace_back(named.name);
  }
  return names;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

Isa best_isa(const CpuFeatures& f) {
  if (!(f.avx2 && f.fma && f.f16c && f.bmi2)) return Isa::baseline;
  if (!(f.avx512f && f.avx512bw && f.avx512dq && f.avx512vl)) return Isa::avx2;
  if (!f.avx512_bf16) return Isa::avx512;
  return f.amx_tile && f.amx_bf16 ? Isa::amx_bf16 : Isa::avx512_bf16;
}

Isa choose_isa(const CpuFeatures& features, const char* requested) {
  const Isa best = best_isa(features);
  if (requested == nullptr || *requested == '\0') return best;
  for (const Isa level : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16}) {
    if (std::strcmp(requested, isa_name(level)) != 0) continue;
    const std::string has = join(names_of(features));
    OPSIN_CHECK(ValueError, level <= best, "OPSIN_ISA: expected at most ", isa_name(best),
                " on this machine, got ", requested, " (its features are ", has.empty() ? "none" : has,
                "; unset OPSIN_ISA to use the best level)");
    return level;
  }
  detail::raise<ValueError>("OPSIN_ISA: expected baseline, avx2, avx512, avx512_bf16 or amx_bf16, got \"",
                            requested, "\" (this machine has up to ", isa_name(best), ")");
}

Isa isa() {
  static const Isa chosen = [] {
    const char* requested = std::getenv("OPSIN_ISA");
    const Isa level = choose_isa(cpu_features(), requested);
    if (level < Isa::amx_bf16 || ask_for_tiles()) return level;
    OPSIN_CHECK(
        ValueError, requested == nullptr || *requested == '\0',
        "OPSIN_ISA: expected at most avx512_bf16 where the operating system refuses the tile registers "
        "of AMX, got ",
        requested, " (unset OPSIN_ISA to use the best level)");
    return Isa::avx512_bf16;
  }();
  return chosen;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx_bf16:
      return "amx_bf16";
  }
  return "unknown";
}

std::vector<std::string> features() { return names_of(cpu_features()); }

std::string cpu_name() {
#if defined(__x86_64__)
  uint32_t words[12] = {};
  if (__get_cpuid_max(0x80000000u, nullptr) >= 0x80000004u) {
    for (uint32_t i = 0; i < 3; ++i) {
      uint32_t* w = words + 4 * i;
      __get_cpuid(0x80000002u + i, w, w + 1, w + 2, w + 3);
    }
    char text[sizeof words + 1] = {};
    std::memcpy(text, words, sizeof words);
    std::string name(text);
    const size_t first = name.find_first_not_of(' ');
    const size_t last = name.find_last_not_of(' ');
    if (first != std::string::npos) return name.substr(first, last - first + 1);
  }
  return "x86_64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "unknown";
#endif
}

}  // namespace opsin::cpu
