// Which instruction set the CPU kernels run with.
#pragma once

#include <string>
#include <vector>

#include <opsin/api.h>

namespace opsin::cpu {

/// The levels that kernels are compiled for, each a superset of the one before. `avx2` is AVX2, FMA, F16C
/// and BMI2; `avx512` adds AVX-512 F, BW, DQ and VL; `avx512_bf16` adds products of pairs of bfloat16 and
/// `amx_bf16` those of tiles of them.
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx_bf16 };

/// What the processor has and the operating system lets programs use.
struct CpuFeatures {
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool bmi2 = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool avx512_fp16 = false;
  bool amx_tile = false;
  bool amx_bf16 = false;
  bool amx_int8 = false;
};

/// The features of this machine, whatever OPSIN_ISA says.
OPSIN_API const CpuFeatures& cpu_features();

/// The best level that `features` allow.
OPSIN_API Isa best_isa(const CpuFeatures& features);

/// The level that `requested` names, or the best one when it is null or empty. Raises ValueError for an
/// unknown name and for a level that `features` do not allow.
OPSIN_API Isa choose_isa(const CpuFeatures& features, const char* requested);

/// The level that kernels use: the best of this machine unless the environment variable OPSIN_ISA
/// ("baseline", "avx2", "avx512", "avx512_bf16" or "amx_bf16") names another. Raises ValueError when that is
/// unknown or more than the machine has. The first call asks the operating system for the tile registers if
/// the level has them, and without the permission the level is `avx512_bf16`.
OPSIN_API Isa isa();

/// "baseline", "avx2", "avx512", "avx512_bf16" or "amx_bf16".
OPSIN_API const char* isa_name(Isa isa);

/// Names of the features that this machine has, as in `avx512_bf16`.
OPSIN_API std::vector<std::string> features();

/// The processor's own name, such as "AMD EPYC 9654"; the architecture when it has none.
OPSIN_API std::string cpu_name();

}  // namespace opsin::cpu
