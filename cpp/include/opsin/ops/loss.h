// Losses. `reduction` is "none", "mean" or "sum" (ValueError otherwise).
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Minus the log-likelihood of the right class after a softmax over the classes. `input` holds scores `[N,
/// C]`,
/// `[N, C, spatial...]` or `[C]`. `target` holds either int64 classes of the same shape without C, or
/// probabilities of the same shape as `input`. Class c counts `weight[c]` times; positions of class
/// `ignore_index` don't count; "mean" divides by the total weight (probabilities: by the number of
/// positions). With `label_smoothing` e the target is (1 - e) target + e / C. IndexError names a class out of
/// range and its position.
OPSIN_API Tensor cross_entropy(const Tensor& input, const Tensor& target, const Tensor& weight = {},
                               int64_t ignore_index = -100, std::string_view reduction = "mean",
                               double label_smoothing = 0);
/// As cross_entropy() with classes, for `input` that already holds log-probabilities.
OPSIN_API Tensor nll_loss(const Tensor& input, const Tensor& target, const Tensor& weight = {},
                          int64_t ignore_index = -100, std::string_view reduction = "mean");

// Of x = input and y = target, which broadcast; element by element:

/// weight (x - y)^2
OPSIN_API Tensor mse_loss(const Tensor& input, const Tensor& target, std::string_view reduction = "mean",
                          const Tensor& weight = {});
/// weight |x - y|
OPSIN_API Tensor l1_loss(const Tensor& input, const Tensor& target, std::string_view reduction = "mean",
                         const Tensor& weight = {});
/// (x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2.
OPSIN_API Tensor smooth_l1_loss(const Tensor& input, const Tensor& target,
                                std::string_view reduction = "mean", double beta = 1);
/// (x - y)^2 / 2 where |x - y| <= delta, else delta (|x - y| - delta / 2).
OPSIN_API Tensor huber_loss(const Tensor& input, const Tensor& target, std::string_view reduction = "mean",
                            double delta = 1, const Tensor& weight = {});
/// -weight (y log x + (1 - y) log(1 - x)) with logarithms not below -100; x in [0, 1] and of the shape of y.
OPSIN_API Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const Tensor& weight = {},
                                      std::string_view reduction = "mean");
/// The same for x = sigmoid(input), without overflow; `pos_weight` multiplies the terms of y.
OPSIN_API Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target,
                                                  const Tensor& weight = {},
                                                  std::string_view reduction = "mean",
                                                  const Tensor& pos_weight = {});
/// -alpha_t (1 - p_t)^gamma log p_t with p = sigmoid(x); p_t is p for y = 1 and 1 - p for y = 0, alpha_t is
/// alpha and 1 - alpha, or 1 for alpha = -1; between 0 and 1 they are mixed. gamma = 0 gives the
/// cross-entropy (T.-Y. Lin et al., "Focal Loss for Dense Object Detection", 2017). ValueError for alpha
/// outside [0, 1].
OPSIN_API Tensor sigmoid_focal_loss(const Tensor& inputs, const Tensor& targets, double alpha = 0.25,
                                    double gamma = 2, std::string_view reduction = "none");
/// y (log y - x) for log-probabilities x; exp(y) (y - x) with `log_target`. Also "batchmean": the sum over N.
OPSIN_API Tensor kl_div(const Tensor& input, const Tensor& target, std::string_view reduction = "mean",
                        bool log_target = false);

}  // namespace opsin
