// Sums down the columns of a matrix, in an order that depends on its shape alone.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

namespace opsin::cuda {

/// sums[c] = the sum of rows[r][c] over all r, for rows [count, columns] and count > 0. 16-bit floats are
/// summed in float32 and rounded once.
void column_sums(DType dtype, const void* rows, int64_t count, int64_t columns, void* sums);

/// The same from sums in the compute type of `dtype` (float32, or float64 for float64) to `dtype`.
void column_sums_of_partials(DType dtype, const void* rows, int64_t count, int64_t columns, void* sums);

}  // namespace opsin::cuda
