// Attention to a few sampled points of several feature maps.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// y[n, q, m * D + d] = sum over levels l and points p of attention_weights[n, q, m, l, p] * value_l(n, m, d
/// at sampling_locations[n, q, m, l, p]): -> [N, Lq, M * D] in the dtype of `value`. `value` [N, S, M, D]
/// holds the maps one after the other: level l, of size spatial_shapes[l] (int64 [L, axes], such as H, W),
/// begins at level_start_index[l] (int64 [L]). `sampling_locations` [N, Lq, M, L, P, axes], x first, go from
/// 0 to 1 over a map; values are interpolated linearly between the centres of pixels and are 0 outside.
/// `attention_weights` is [N, Lq, M, L, P]. There are one to three axes. Points that are not finite count as
/// outside. ValueError for levels that do not lie in S. Deterministic, with second derivatives of all of it.
///
/// Source: X. Zhu et al., "Deformable DETR" (2020), equation 3.
OPSIN_API Tensor ms_deform_attn(const Tensor& value, const Tensor& spatial_shapes,
                                const Tensor& level_start_index, const Tensor& sampling_locations,
                                const Tensor& attention_weights);

}  // namespace opsin
