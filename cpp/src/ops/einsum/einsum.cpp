// Composed of views, sums and batched matrix products, whose gradients give those of the whole.
#include <algorithm>

#include <opsin/ops/binary.h>
#include <opsin/ops/einsum.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "autograd/autocast.h"
#include "core/registry.h"

namespace opsin {

namespace {

constexpr int kLetters = 52;
/// Stands for the dimensions of "..." in a list of subscripts.
constexpr int kEllipsis = kLetters;

/// The product of two tensors of one rank, with 1 for a dimension that one of them lacks, summed over the
/// dimensions with `summed[d]`, which stay as 1.
Tensor contract(Tensor left, Tensor right, const std::vector<bool>& summed) {
  Dims batch, left_only, right_only, both, left_sum, right_sum;
  for (size_t i = 0; i < summed.size(); ++i) {
    const auto d = static_cast<int64_t>(i);
    const bool in_left = left.sizes()[i] != 1, in_right = right.sizes()[i] != 1;
    if (!summed[i]) {
      (in_left == in_right ? batch : in_left ? left_only : right_only).push_back(d);
    } else if (in_left && in_right) {
      both.push_back(d);
    } else {
      (in_left ? left_sum : right_sum).push_back(d);
    }
  }
  // What only one of them has is summed before the product.
  Dims dropped = both;
  for (const Dims* sums : {&left_sum, &right_sum}) {
    for (const int64_t d : *sums) dropped.push_back(d);
  }
  if (!left_sum.empty()) left = sum(left, left_sum, /*keepdim=*/true);
  if (!right_sum.empty()) right = sum(right, right_sum, /*keepdim=*/true);
  if (both.empty()) return mul(left, right);

  const auto count = [](const Tensor& x, const Dims& dims) {
    int64_t product = 1;
    for (const int64_t d : dims) product *= x.size(d);
    return product;
  };
  const auto order = [&](std::initializer_list<const Dims*> groups) {
    Dims result;
    for (const Dims* group : groups) {
      for (const int64_t d : *group) result.push_back(d);
    }
    return result;
  };
  const Dims seen = order({&batch, &left_only, &right_only, &dropped});
  Dims sizes;
  for (const int64_t d : seen) {
    const bool gone = std::find(dropped.begin(), dropped.end(), d) != dropped.end();
    sizes.push_back(gone ? 1 : left.size(d) == 1 ? right.size(d) : left.size(d));
  }
  const int64_t b = count(left, batch), m = count(left, left_only), k = count(left, both),
                n = count(right, right_only);
  const Dims rows = order({&batch, &left_only, &both, &right_only, &left_sum, &right_sum});
  const Dims columns = order({&batch, &both, &right_only, &left_only, &left_sum, &right_sum});
  const Tensor product =
      bmm(reshape(permute(left, rows), Dims{b, m, k}), reshape(permute(right, columns), Dims{b, k, n}));
  Dims back(seen.size());
  for (size_t i = 0; i < seen.size(); ++i) back[static_cast<size_t>(seen[i])] = static_cast<int64_t>(i);
  return permute(reshape(product, sizes), back);
}

int subscript_of(char letter) {
  if (letter >= 'A' && letter <= 'Z') return letter - 'A';
  if (letter >= 'a' && letter <= 'z') return letter - 'a' + 26;
  return -1;
}
char letter_of(int subscript) {
  return static_cast<char>(subscript < 26 ? 'A' + subscript : 'a' + subscript - 26);
}

/// The subscripts of one operand, or of the output.
std::vector<int> read_subscripts(std::string_view text, std::string_view whose) {
  std::vector<int> result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ') continue;
    if (text[i] == '.') {
      OPSIN_CHECK(Error, std::find(result.begin(), result.end(), kEllipsis) == result.end(),
                  "einsum: found '.' for ", whose, " for which an ellipsis was already found");
      OPSIN_CHECK(Error, text.substr(i, 3) == "...", "einsum: found '.' for ", whose,
                  " that is not part of any ellipsis");
      result.push_back(kEllipsis);
      i += 2;
      continue;
    }
    result.push_back(subscript_of(text[i]));
    OPSIN_CHECK(Error, result.back() >= 0, "einsum: invalid subscript '", text[i], "' for ", whose,
                ", subscripts must be in [a-zA-Z]");
  }
  return result;
}

std::string operand_name(size_t i) { return "operand " + std::to_string(i); }

struct Equation {
  std::vector<std::vector<int>> inputs;
  std::vector<int> output;
};

Equation read_equation(std::string_view text, size_t operands) {
  Equation equation;
  const size_t arrow = text.find("->");
  std::string_view rest = text.substr(0, arrow);
  for (bool more = true; more;) {
    const size_t comma = rest.find(',');
    equation.inputs.push_back(read_subscripts(rest.substr(0, comma), operand_name(equation.inputs.size())));
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
  }
  OPSIN_CHECK(Error, equation.inputs.size() == operands,
              "einsum: ", equation.inputs.size() > operands ? "fewer" : "more",
              " operands were provided than specified in the equation, got ", operands, " for ",
              equation.inputs.size());
  int uses[kLetters + 1] = {};
  for (const auto& input : equation.inputs) {
    for (const int subscript : input) ++uses[subscript];
  }
  if (arrow == std::string_view::npos) {
    if (uses[kEllipsis]) equation.output.push_back(kEllipsis);
    for (int subscript = 0; subscript < kLetters; ++subscript) {
      if (uses[subscript] == 1) equation.output.push_back(subscript);
    }
    return equation;
  }
  equation.output = read_subscripts(text.substr(arrow + 2), "the output");
  bool named[kLetters + 1] = {};
  for (const int subscript : equation.output) {
    if (subscript == kEllipsis) continue;
    OPSIN_CHECK(Error, !named[subscript], "einsum: output subscript ", letter_of(subscript),
                " appears more than once in the output");
    OPSIN_CHECK(Error, uses[subscript], "einsum: output subscript ", letter_of(subscript),
                " does not appear in the equation for any input operand");
    named[subscript] = true;
  }
  return equation;
}

/// How many dimensions the "..." of an operand stands for.
int64_t ellipsis_rank(const std::vector<int>& subscripts, const Tensor& operand, size_t i) {
  const bool open = std::find(subscripts.begin(), subscripts.end(), kEllipsis) != subscripts.end();
  const int64_t named = static_cast<int64_t>(subscripts.size()) - open;
  OPSIN_CHECK(ShapeError, open ? operand.dim() >= named : operand.dim() == named,
              "einsum: the number of subscripts in the equation (", named, ") ",
              open ? "is more than" : "does not match", " the number of dimensions (", operand.dim(),
              ") for operand ", i, open ? "" : " and no ellipsis was given");
  return operand.dim() - named;
}

}  // namespace

Tensor einsum(std::string_view text, TensorSpan operands) {
  OPSIN_CHECK(ValueError, !operands.empty(), "einsum: must provide at least one operand");
  if (autocast::is_on(DeviceType::kCUDA, operands[0])) {
    TensorList lower;
    for (const Tensor& operand : operands) lower.push_back(autocast::cast(operand, autocast::kLower));
    const autocast::Suspend off;
    return einsum(text, lower);
  }
  const Equation equation = read_equation(text, operands.size());
  int64_t hidden = 0;
  for (size_t i = 0; i < operands.size(); ++i) {
    hidden = std::max(hidden, ellipsis_rank(equation.inputs[i], operands[i], i));
  }

  // Every subscript gets a dimension that all operands share: those of the output first.
  int64_t place[kLetters + 1];
  std::fill_n(place, kLetters + 1, -1);
  int64_t rank = 0;
  const auto assign = [&](int subscript) {
    if (place[subscript] >= 0) return;
    place[subscript] = rank;
    rank += subscript == kEllipsis ? hidden : 1;
  };
  for (const int subscript : equation.output) assign(subscript);
  const int64_t kept = rank;
  for (const auto& input : equation.inputs) {
    for (const int subscript : input) assign(subscript);
  }

  std::vector<Tensor> aligned;
  Dims sizes(static_cast<size_t>(rank), 1);
  Dims last(static_cast<size_t>(rank), 0);
  for (size_t i = 0; i < operands.size(); ++i) {
    Tensor x = operands[i];
    const int64_t open = ellipsis_rank(equation.inputs[i], x, i);
    Dims from(static_cast<size_t>(rank), -1);
    int64_t d = 0;
    for (const int subscript : equation.inputs[i]) {
      if (subscript == kEllipsis) {
        for (int64_t e = 0; e < open; ++e)
          from[static_cast<size_t>(place[subscript] + hidden - open + e)] = d++;
        continue;
      }
      int64_t& first = from[static_cast<size_t>(place[subscript])];
      if (first < 0) {
        first = d++;
        continue;
      }
      OPSIN_CHECK(ShapeError, x.size(first) == x.size(d), "einsum: subscript ", letter_of(subscript),
                  " is repeated for operand ", i, " but the sizes don't match, ", x.size(d),
                  " != ", x.size(first));
      x = movedim(diagonal(x, 0, first, d), Dims{-1}, Dims{first});
    }
    Dims order, missing;
    for (size_t p = 0; p < from.size(); ++p) {
      if (from[p] < 0) {
        missing.push_back(static_cast<int64_t>(p));
      } else {
        order.push_back(from[p]);
      }
    }
    x = permute(x, order);
    for (const int64_t p : missing) x = unsqueeze(x, p);
    for (size_t p = 0; p < sizes.size(); ++p) {
      const int64_t size = x.sizes()[p];
      if (size == 1) continue;
      OPSIN_CHECK(ShapeError, sizes[p] == 1 || sizes[p] == size, "einsum: operand ", i, " has size ", size,
                  " for a subscript which does not broadcast with previously seen size ", sizes[p], " in \"",
                  text, "\"");
      sizes[p] = size;
      last[p] = static_cast<int64_t>(i);
    }
    aligned.push_back(std::move(x));
  }

  Tensor result = aligned[0];
  for (size_t i = 0; i < aligned.size(); ++i) {
    std::vector<bool> summed(static_cast<size_t>(rank));
    Dims ended;
    for (int64_t p = kept; p < rank; ++p) {
      const auto at = static_cast<size_t>(p);
      if (last[at] != static_cast<int64_t>(i) || sizes[at] == 1) continue;
      summed[at] = true;
      ended.push_back(p);
    }
    if (i > 0) {
      result = contract(result, aligned[i], summed);
    } else if (!ended.empty()) {
      result = sum(result, ended, /*keepdim=*/true);
    }
  }
  Dims shape;
  for (int64_t p = 0; p < kept; ++p) shape.push_back(result.size(p));
  return reshape(result, shape);
}

Tensor tensordot(const Tensor& self, const Tensor& other, IntSpan dims_self, IntSpan dims_other) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kWidest>(tensordot, self, other, dims_self, dims_other);
  OPSIN_CHECK(ShapeError, dims_self.size() == dims_other.size(),
              "tensordot: both dimension lists should have same length, got ", str(dims_self), " and ",
              str(dims_other));
  // self's own dimensions, those to sum over, other's own.
  const auto split = [](const Tensor& x, IntSpan dims, Dims& order) {
    uint64_t summed = 0;
    for (const int64_t dim : dims) {
      const int64_t d = wrap_dim(dim, x.dim(), "tensordot");
      OPSIN_CHECK(Error, !(summed >> d & 1), "tensordot: dim ", d, " appears multiple times in the list ",
                  str(dims));
      summed |= uint64_t{1} << d;
      order.push_back(d);
    }
    Dims own;
    for (int64_t d = 0; d < x.dim(); ++d) {
      if (!(summed >> d & 1)) own.push_back(d);
    }
    return own;
  };
  Dims left_order, right_order;
  const Dims left_own = split(self, dims_self, left_order), right_own = split(other, dims_other, right_order);
  for (size_t i = 0; i < dims_self.size(); ++i) {
    const int64_t a = self.size(left_order[i]), b = other.size(right_order[i]);
    OPSIN_CHECK(ShapeError, a == b || a == 1 || b == 1,
                "tensordot: contracted dimensions need to match, but first has size ", a, " in dim ",
                dims_self[i], " and second has size ", b, " in dim ", dims_other[i]);
  }
  for (const int64_t d : left_own) left_order.push_back(d);
  for (const int64_t d : right_own) right_order.push_back(d);
  Tensor left = permute(self, left_order), right = permute(other, right_order);
  for (size_t i = 0; i < right_own.size(); ++i) left = unsqueeze(left, -1);
  for (size_t i = 0; i < left_own.size(); ++i)
    right = unsqueeze(right, static_cast<int64_t>(dims_self.size()));
  std::vector<bool> summed(left.sizes().size());
  std::fill_n(summed.begin(), dims_self.size(), true);
  Dims shape;
  for (const int64_t d : left_own) shape.push_back(self.size(d));
  for (const int64_t d : right_own) shape.push_back(other.size(d));
  return reshape(contract(left, right, summed), shape);
}

Tensor kron(const Tensor& self, const Tensor& other) {
  const auto rank = static_cast<size_t>(std::max(self.dim(), other.dim()));
  // [a0, 1, a1, 1, ...] * [1, b0, 1, b1, ...]
  Dims left(2 * rank, 1), right(2 * rank, 1), shape(rank, 1);
  for (size_t i = 0; i < self.sizes().size(); ++i)
    left[2 * (rank - self.sizes().size() + i)] = self.sizes()[i];
  for (size_t i = 0; i < other.sizes().size(); ++i) {
    right[2 * (rank - other.sizes().size() + i) + 1] = other.sizes()[i];
  }
  for (size_t i = 0; i < rank; ++i) shape[i] = left[2 * i] * right[2 * i + 1];
  return reshape(mul(reshape(self, left), reshape(other, right)), shape);
}

void register_einsum(Registry& registry) {
  registry.add<&einsum>("contract.einsum(str equation, Tensor[]... operands) -> Tensor",
                        "The sum of products that `equation` describes, such as 'bij,bjk->bik'.");
  registry.add<&tensordot>("contract.tensordot(Tensor a, Tensor b, int[] dims_a, int[] dims_b) -> Tensor",
                           "The sum of products over dimensions dims_a of `a` and dims_b of `b`.");
  registry.add<&kron>("kron(Tensor self, Tensor other) -> Tensor",
                      "The Kronecker product: `other` scaled by each element of `self`, as blocks.");
}

}  // namespace opsin
