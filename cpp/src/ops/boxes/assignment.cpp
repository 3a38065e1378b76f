// The linear assignment problem: shortest augmenting paths with potentials, one row after the other.
#include "parts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <opsin/ops/boxes.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

namespace opsin {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Costs [rows, columns], rows <= columns. All reduced costs cost - u - v are at least 0, and 0 for pairs
/// that are assigned.
class Assignment {
 public:
  Assignment(const double* cost, int64_t rows, int64_t columns)
      : cost_(cost),
        columns_(columns),
        u_(static_cast<size_t>(rows)),
        v_(static_cast<size_t>(columns)),
        distance_(static_cast<size_t>(columns)),
        before_(static_cast<size_t>(columns)),
        open_(static_cast<size_t>(columns)),
        column_of_(static_cast<size_t>(rows), -1),
        row_of_(static_cast<size_t>(columns), -1) {}

  /// The column of each row; empty if there is no assignment of finite cost.
  std::vector<int64_t> solve() {
    for (int64_t row = 0; row < static_cast<int64_t>(u_.size()); ++row) {
      const int64_t end = shortest_path(row);
      if (end < 0) return {};
      for (int64_t column = end; column >= 0;) {
        const int64_t taker = before_[at(column)];
        row_of_[at(column)] = taker;
        std::swap(column, column_of_[at(taker)]);
        if (taker == row) break;
      }
    }
    return column_of_;
  }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }

  /// The free column that is nearest to `start` along alternating pairs (Dijkstra's algorithm), or -1;
  /// updates the potentials.
  int64_t shortest_path(int64_t start) {
    std::fill(distance_.begin(), distance_.end(), kInfinity);
    std::iota(open_.begin(), open_.end(), int64_t{0});
    visited_.clear();
    int64_t left = columns_, row = start, end = -1;
    double reached = 0;
    while (end < 0) {
      const double* cost = cost_ + row * columns_;
      double least = kInfinity;
      int64_t nearest = -1;
      for (int64_t k = 0; k < left; ++k) {
        const int64_t column = open_[at(k)];
        const double length = reached + cost[column] - u_[at(row)] - v_[at(column)];
        if (length < distance_[at(column)]) {
          distance_[at(column)] = length;
          before_[at(column)] = row;
        }
        // Of equally near columns a free one ends the search.
        const double d = distance_[at(column)];
        if (d < least || (d == least && d < kInfinity && row_of_[at(column)] < 0)) {
          least = d;
          nearest = k;
        }
      }
      if (nearest < 0) return -1;
      reached = least;
      const int64_t column = open_[at(nearest)];
      open_[at(nearest)] = open_[at(--left)];
      if (row_of_[at(column)] < 0) {
        end = column;
      } else {
        visited_.push_back(column);
        row = row_of_[at(column)];
      }
    }
    u_[at(start)] += reached;
    for (const int64_t column : visited_) {
      const double slack = reached - distance_[at(column)];
      u_[at(row_of_[at(column)])] += slack;
      v_[at(column)] -= slack;
    }
    return end;
  }

  const double* cost_;
  int64_t columns_;
  std::vector<double> u_, v_, distance_;
  std::vector<int64_t> before_, open_, visited_, column_of_, row_of_;
};

}  // namespace

std::array<Tensor, 2> linear_sum_assignment(const Tensor& cost_matrix, bool maximize) {
  constexpr const char* kName = "linear_sum_assignment";
  OPSIN_CHECK(ShapeError, cost_matrix.dim() == 2, kName, ": expected cost_matrix [N, M], got ",
              str(cost_matrix.sizes()));
  const int64_t n = cost_matrix.size(0), m = cost_matrix.size(1), pairs = std::min(n, m);
  Tensor cost = to(to(cost_matrix.detach(), kCPU), kFloat64);
  if (maximize) cost = neg(cost);
  if (n > m) cost = transpose(cost, 0, 1);
  cost = contiguous(cost);
  const auto* data = cost.data<double>();
  for (int64_t i = 0; i < cost.numel(); ++i) {
    OPSIN_CHECK(ValueError, data[i] > -kInfinity, kName, ": expected numbers, or ",
                maximize ? "-inf" : "+inf", " for forbidden pairs, got ", maximize ? -data[i] : data[i],
                " in cost_matrix");
  }
  const std::vector<int64_t> found = Assignment(data, pairs, std::max(n, m)).solve();
  OPSIN_CHECK(ValueError, static_cast<int64_t>(found.size()) == pairs, kName,
              ": cost matrix is infeasible: the pairs that are not forbidden don't cover its ",
              n > m ? "columns" : "rows");
  const Tensor rows = empty(Dims{pairs}, kInt64), columns = empty(Dims{pairs}, kInt64);
  auto* row = rows.mutable_data<int64_t>();
  auto* column = columns.mutable_data<int64_t>();
  std::vector<int64_t> order(static_cast<size_t>(pairs));
  std::iota(order.begin(), order.end(), int64_t{0});
  if (n > m) {
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return found[static_cast<size_t>(a)] < found[static_cast<size_t>(b)];
    });
  }
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t one = order[static_cast<size_t>(i)], other = found[static_cast<size_t>(one)];
    row[i] = n > m ? other : one;
    column[i] = n > m ? one : other;
  }
  return {to(rows, cost_matrix.device()), to(columns, cost_matrix.device())};
}

void register_assignment(Registry& registry) {
  registry.add<&linear_sum_assignment>(
      "ops.linear_sum_assignment(Tensor cost_matrix, bool maximize=False) -> (Tensor rows, Tensor columns)",
      "The one-to-one pairs of rows and columns of [N, M] with the least total cost, int64 [min(N, M)] "
      "each.");
}

}  // namespace opsin
