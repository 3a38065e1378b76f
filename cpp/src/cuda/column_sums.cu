// A tree of passes. In each, thread (r, c) adds the rows r, r + step, r + 2 step, ...: neighbouring threads
// read neighbouring elements whatever the number of columns, and no pass adds long sums with few threads.
#include <algorithm>

#include "core/dispatch.h"
#include "cuda/column_sums.h"
#include "cuda/launch.h"
#include "cuda/workspace.h"

namespace opsin::cuda {
namespace {

constexpr int kThreads = 256;
// A later pass adds so many partial sums in each thread, the first one as many as it takes to keep its
// results below kMostPartials.
constexpr int64_t kRowsOfThread = 64;
constexpr int64_t kMostPartials = int64_t{1} << 18;

template <class From, class To, class Sum>
__global__ void add_rows(const From* rows, int64_t count, int64_t columns, int64_t step, To* sums) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= step * columns) return;
  // Element (r, c) and the one `step` rows below it are step * columns apart.
  Sum sum{};
  for (int64_t at = i; at < count * columns; at += step * columns) sum += static_cast<Sum>(rows[at]);
  sums[i] = static_cast<To>(sum);
}

template <class From, class To, class Sum>
void launch(const From* rows, int64_t count, int64_t columns, int64_t step, To* sums) {
  const auto blocks = static_cast<unsigned>((step * columns + kThreads - 1) / kThreads);
  OPSIN_LAUNCH((add_rows<From, To, Sum>), blocks, kThreads, 0, rows, count, columns, step, sums);
}

int64_t partials(int64_t count, int64_t columns) {
  const int64_t wanted = (count + kRowsOfThread - 1) / kRowsOfThread;
  return std::clamp<int64_t>(kMostPartials / columns, 1, wanted);
}

template <class From, class To, class Sum>
void reduce(const From* rows, int64_t count, int64_t columns, To* sums) {
  const int64_t step = partials(count, columns);
  if (step == 1) return launch<From, To, Sum>(rows, count, columns, 1, sums);
  const Workspace memory(step * columns * static_cast<int64_t>(sizeof(Sum)));
  auto* first = static_cast<Sum*>(memory.get());
  launch<From, Sum, Sum>(rows, count, columns, step, first);
  reduce<Sum, To, Sum>(first, step, columns, sums);
}

}  // namespace

void column_sums(DType dtype, const void* rows, int64_t count, int64_t columns, void* sums) {
  dispatch_floating(dtype, "column_sums", [&]<class T>() {
    reduce<T, T, compute_t<T>>(static_cast<const T*>(rows), count, columns, static_cast<T*>(sums));
  });
}

void column_sums_of_partials(DType dtype, const void* rows, int64_t count, int64_t columns, void* sums) {
  dispatch_floating(dtype, "column_sums", [&]<class T>() {
    using Sum = compute_t<T>;
    reduce<Sum, T, Sum>(static_cast<const Sum*>(rows), count, columns, static_cast<T*>(sums));
  });
}

}  // namespace opsin::cuda
