#include "reduction.h"

#include <opsin/ops/reduce.h>

namespace opsin {

Reduction parse_reduction(std::string_view text, const char* op) {
  if (text == "mean") return Reduction::kMean;
  if (text == "sum") return Reduction::kSum;
  OPSIN_CHECK(ValueError, text == "none", op, ": \"", text,
              "\" is not a valid value for reduction (expected \"none\", \"mean\" or \"sum\")");
  return Reduction::kNone;
}

std::string_view legacy_reduction(std::optional<bool> size_average, std::optional<bool> reduce,
                                  std::string_view reduction) {
  if (!size_average && !reduce) return reduction;
  if (!reduce.value_or(true)) return "none";
  return size_average.value_or(true) ? "mean" : "sum";
}

Tensor reduce_loss(const Tensor& loss, Reduction reduction) {
  if (reduction == Reduction::kNone) return loss;
  return reduction == Reduction::kMean ? mean(loss) : sum(loss);
}

}  // namespace opsin
