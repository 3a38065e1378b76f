// How a kernel table is chosen by instruction set.
//
// A kernel family has three files:
//   foo_kernels.h   in namespace opsin::cpu: struct FooTable { void (*run)(const FooParams*); ... }; a POD of
//   function
//                   pointers over PODs and pointers, and OPSIN_ISA_TABLE(FooTable, foo_table)
//   foo_isa.cpp     compiled once per level with -DOPSIN_ISA_NS=baseline, avx2 or avx512 and that level's
//   flags;
//                   defines `const FooTable& foo_table()` in `namespace opsin::cpu::OPSIN_ISA_NS`.
//   foo.cpp         compiled once; calls OPSIN_ISA_SELECT(cpu::foo_table).run(&params).
// Few kernels gain from a level beyond avx512: files named foo_avx512_bf16.cpp and foo_amx_bf16.cpp are
// compiled for that level alone, and foo.cpp asks isa() for it.
// A template or inline function that both kinds of file instantiate would be merged by the linker, and the
// whole program could get the version compiled for AVX-512. So foo_isa.cpp never uses OPSIN_ISA_SELECT,
// containers, strings or throws.
#pragma once

#include "isa.h"

namespace opsin::cpu {

/// Where a table comes from at each level.
template <class Table>
struct IsaTables {
  const Table& (*baseline)();
#if defined(__x86_64__)
  const Table& (*avx2)();
  const Table& (*avx512)();
#endif
};

/// The table of `isa()`.
template <class Table>
const Table& select_table(const IsaTables<Table>& tables) {
#if defined(__x86_64__)
  const Isa level = isa();
  if (level >= Isa::avx512) return tables.avx512();
  if (level == Isa::avx2) return tables.avx2();
#endif
  return tables.baseline();
}

}  // namespace opsin::cpu

/// Declares `const Table& name()` for every level; to be used in namespace opsin::cpu.
#if defined(__x86_64__)
#define OPSIN_ISA_TABLE(Table, name) \
  namespace baseline {               \
  const Table& name();               \
  }                                  \
  namespace avx2 {                   \
  const Table& name();               \
  }                                  \
  namespace avx512 {                 \
  const Table& name();               \
  }                                  \
  inline constexpr ::opsin::cpu::IsaTables<Table> name{&baseline::name, &avx2::name, &avx512::name};
#else
#define OPSIN_ISA_TABLE(Table, name) \
  namespace baseline {               \
  const Table& name();               \
  }                                  \
  inline constexpr ::opsin::cpu::IsaTables<Table> name{&baseline::name};
#endif

/// The table that `OPSIN_ISA_TABLE(Table, name)` declared, at the level of `opsin::cpu::isa()`.
#define OPSIN_ISA_SELECT(name) ::opsin::cpu::select_table(name)
