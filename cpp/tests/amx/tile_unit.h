// A model of the tile registers of AMX, for machines without them: -DOPSIN_AMX_MODEL=ON compiles the kernels
// a second time with these functions in place of the intrinsics of the same names.
//
// Written from Intel's Software Developer's Manual, volume 2 (LDTILECFG, TILELOADD, TILESTORED, TILEZERO,
// TILERELEASE, TDPBF16PS). What would fault there ends the process here, and so do mistakes that would not: a
// call that leaves tiles behind for the next one, and sums that nothing has set.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace opsin::cpu::tile_unit {

void load_config(const void* config);
void release();
void zero(int tile);
void load(int tile, const void* base, int64_t stride);
void store(int tile, void* base, int64_t stride);
void dot_bf16(int sums, int a, int b);

/// Calls of dot_bf16() by all threads.
int64_t dots();

}  // namespace opsin::cpu::tile_unit

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) ::opsin::cpu::tile_unit::load_config(config)
#define _tile_release() ::opsin::cpu::tile_unit::release()
#define _tile_zero(tile) ::opsin::cpu::tile_unit::zero(tile)
#define _tile_loadd(tile, base, stride) ::opsin::cpu::tile_unit::load(tile, base, stride)
#define _tile_stored(tile, base, stride) ::opsin::cpu::tile_unit::store(tile, base, stride)
#define _tile_dpbf16ps(sums, a, b) ::opsin::cpu::tile_unit::dot_bf16(sums, a, b)
