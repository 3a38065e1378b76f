// Batch norms that are still to be written, and what joins them: DESIGN.md, section 3.
#pragma once

#include "norm_kernels.h"

#include "core/tail.h"

namespace opsin {

/// How the channels of `x` [N, C, spatial...], dense, lie.
ChannelShape shape_of(const Tensor& x);

/// The batch norm of `x`, dense, by what batch_norm_statistics made: pending if it can be.
Tensor leave_normalised(const Tensor& x, const Tensor& numbers);

/// y = x kept in [0, ceiling], in place if y is x, as a part of the tail of x. False: x has none that takes
/// it.
bool join_relu(Tensor& y, const Tensor& x, double ceiling);
/// y = a + b, in place if y is a, as a part of the tail of a or b. False: neither has one that takes it.
bool join_add(Tensor& y, const Tensor& a, const Tensor& b);

/// The tail of a pending gradient of ReLU, laid out as `x`.
std::optional<Tail> masked_gradient(const Tensor& gradient, const Tensor& x);
/// Whether the output of that ReLU is what `numbers` made of `x`, so that it need not be read.
bool is_mask_of(const Tail& masked, const Tensor& x, const Tensor& numbers);

}  // namespace opsin
