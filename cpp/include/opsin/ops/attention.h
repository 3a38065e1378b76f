// Attention.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// softmax(scale query key^T + mask) value for `query` `[..., H, L, E]`, `key` `[..., H, S, E]` and `value`
/// `[..., H, S, Ev]`; gives `[..., H, L, Ev]`. Leading dimensions broadcast. The matrix of L x S scores never
/// exists as a whole: the softmax of a row is updated block by block, and the backward pass computes the
/// scores anew.
///
/// `attn_mask` broadcasts to `[..., H, L, S]`: a bool mask says where a query may look, any other is added to
/// the scores and gets a gradient. `is_causal`, which excludes a mask, lets query i see keys 0 to i. A query
/// that sees nothing gets zeros. `scale` is 1 / sqrt(E) by default. With `enable_gqa`, `H` of the query is a
/// multiple of that of key and value, whose heads serve as many neighbouring heads of the query each.
/// `dropout_p` zeroes that share of the weights and scales the others by 1 / (1 - p), whether in training or
/// not; no mask is kept.
///
/// ShapeError for sizes that do not fit, Error for different dtypes or a mask beside `is_causal`, ValueError
/// for `dropout_p` outside [0, 1]. Sources: Vaswani et al., "Attention is all you need", 2017; Milakov and
/// Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022.
OPSIN_API Tensor scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                              const Tensor& attn_mask = {}, double dropout_p = 0,
                                              bool is_causal = false,
                                              std::optional<double> scale = std::nullopt,
                                              bool enable_gqa = false);

// Windows and neighbourhoods of grids of 1, 2 or 3 dimensions, channels last, and rotary positions.

/// Cuts `input` `[N, spatial..., C]` into windows of `window_size`, one per axis or one for all:
/// `[N * windows, window_size..., C]`, the windows of an image in row-major order. ShapeError unless each
/// axis is a multiple of its window. Source: Liu et al., "Swin Transformer", 2021.
OPSIN_API Tensor window_partition(const Tensor& input, IntSpan window_size);
/// The inverse of window_partition(): `windows` `[N * windows, window_size..., C]` as `[N, size..., C]`.
OPSIN_API Tensor window_reverse(const Tensor& windows, IntSpan size);

/// Each position attends to the `kernel_size` positions per axis nearest to it, itself in the middle, but at
/// the borders; only every `dilation`-th position counts (1 if empty). `query`, `key`, `value` `[N,
/// spatial..., heads, D]`, 1 to 3 axes; gives the shape of `value`. `scale` is 1 / sqrt(D) by default.
/// `relative_position_bias` `[heads, 2 kernel_size - 1...]` is added to the scores: its entry for a key is
/// (key - query) / dilation + kernel_size - 1 along each axis. It runs over blocks of queries and the block
/// of keys around each, so memory grows with the number of positions times kernel_size, not with its square.
/// ShapeError unless kernel_size is odd and, times dilation, at most the size of its axis. Sources:
/// Ramachandran et al., "Stand-alone self-attention in vision models", 2019; Hassani et al., "Neighborhood
/// attention transformer", 2023.
OPSIN_API Tensor neighborhood_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                        IntSpan kernel_size, IntSpan dilation = {},
                                        std::optional<double> scale = std::nullopt,
                                        const Tensor& relative_position_bias = {});

/// Turns the pairs (x[i], x[i + D / 2]) of `input` `[..., L, D]` by the angles whose cosines and sines are
/// `cos` and `sin`, `[L, D / 2]` or what broadcasts to `[..., L, D / 2]`. ShapeError for an odd D. Source: Su
/// et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
OPSIN_API Tensor rotary_embedding(const Tensor& input, const Tensor& cos, const Tensor& sin);

}  // namespace opsin
